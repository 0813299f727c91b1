"""The small jobs that are attacked: one run for each method and adapter, and the verbs on a finished run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from forgetmenot.methods import METHODS

SMALL = {
    "training.limit": 16,
    "training.batch_size": 8,
    "training.save_every": 1,
    "training.precision": "fp32",
    "evaluation.limit": 4,
}
MODEL, TASKS, UNSEEN = "quickstart-small", "qs-sentiment,qs-paraphrase", "qs-acceptability"

SETTINGS: dict[str, Mapping[str, str]] = {
    **{name: {"method": name} for name in METHODS},
    "sequential, adapters new": {"adapter.per_stage": "new"},
    "sequential, adapters merged": {"adapter.per_stage": "merge"},
    "sequential, full": {"adapter.kind": "full"},
    "sequential, soft prompt": {"adapter.kind": "prompt"},
    "sequential, checkpoints none": {"checkpoints": "none"},
    "sequential, checkpoints last": {"checkpoints": "last"},
}
"""What is run, by name; the adapter is LoRA that goes on from stage to stage where the method allows it."""


def run_command(setting: str, output: Path) -> list[str]:
    """The arguments of `fmn` for the small run of a setting."""
    values = {**SMALL, **SETTINGS[setting]}
    given = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return ["run", "--model", MODEL, "--tasks", TASKS, "--output", str(output), *given]


class Verb(NamedTuple):
    """A command on what lies in a folder: `run/` and `other/`, two finished runs; it may write `out/`.

    Attributes:
        command: The arguments of `fmn`, of the folder.
        needs: What must be there.
        makes: Patterns of the files whose bytes an undisturbed command always gives.
        done: The exit statuses of a command that did its work.
    """

    command: Callable[[Path], Sequence[str]]
    needs: tuple[str, ...]
    makes: tuple[str, ...]
    done: tuple[int, ...] = (0,)


NUMBERS = (
    "run/results.json",
    "run/stages/[0-9]*/**/predictions*.parquet",
    "run/stages/[0-9]*/**/*.safetensors",
)
"""What two equal runs share to the last bit."""


def _study(folder: Path) -> list[str]:
    base = {"model": MODEL, "tasks": TASKS, **SMALL}
    study = {"base": {}, "grid": {"method": ["sequential", "replay"]}}
    path = folder.parent / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    given = [word for key, value in base.items() for word in ("--set", f"base.{key}={value}")]
    return ["study", str(path), "--output", str(folder / "out"), "--workers", "1", *given]


def _check(folder: Path) -> list[str]:
    sides = [MODEL, f"{folder / 'run'}:last"]
    return ["check", *sides, "--tasks", UNSEEN, "--limit", "8", "--output", str(folder / "out")]


VERBS = {
    "run": Verb(lambda folder: run_command("ewc", folder / "run"), (), NUMBERS),
    "report": Verb(lambda folder: ["report", str(folder / "run")], ("run",), ("run/report.html",)),
    "score": Verb(
        lambda folder: ["score", str(folder / "run"), "--tasks", UNSEEN], ("run",), ("run/readings/*.json",)
    ),
    "export": Verb(lambda folder: ["export", str(folder / "run"), str(folder / "out")], ("run",), ("out/*",)),
    "check": Verb(_check, ("run",), ("out/check.json",), (0, 1, 3)),
    "compare": Verb(
        lambda folder: [
            "compare", str(folder / "run"), str(folder / "other"), "--output", str(folder / "out"),
        ],
        ("run", "other"),
        ("out/*.csv",),
    ),
    "study": Verb(_study, (), ("out/study.json", "out/runs/*/results.json")),
}  # fmt: skip
