"""The limits of tuned models: tuned on a mixture of tasks, against the same base with examples in context.

After Bigoulaeva, Tayyar Madabushi and Gurevych 2025 (arXiv 2501.08716), who find that what a tuned model can
do is predicted by what its base can do in context. docs/limits.md says what is theirs and what is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot.config import load_config, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.paths import model_name, path_safe
from forgetmenot.record.layout import CONFIG
from forgetmenot.report.limits_tables import limits_markdown, print_limits
from forgetmenot.report.screen import Screen
from forgetmenot.report.wording import listed
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder
from forgetmenot.tasks import Task, fingerprint, load_tasks
from forgetmenot.trials.limits_figures import correct_differences, correlations_of, paper_interval
from forgetmenot.trials.limits_settings import LimitsSettings, limits_settings
from forgetmenot.trials.limits_tasks import DIRECT, Case, make_cases, write_training
from forgetmenot.trials.limits_trial import Trial

if TYPE_CHECKING:
    import pandas as pd

CONTENT, ASKED = "limits.json", "asked.json"


@dataclass(frozen=True)
class Limits:
    """What `limits` found.

    Attributes:
        path: The directory with limits.json, limits.md, the runs and every answer.
        found: The content of limits.json.
    """

    path: Path
    found: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each model, task and condition: accuracy, margin and their intervals."""
        import pandas as pd

        return pd.DataFrame(
            {"model": model["model"], "task": task, "condition": condition, **figures}
            for model in self.found["models"]
            for task, of_task in model["scores"].items()
            for condition, figures in of_task.items()
        )

    @property
    def correlations(self) -> pd.DataFrame:
        """A row for each model, pair of conditions, measure and coefficient."""
        import pandas as pd

        return pd.DataFrame(self.found["correlations"])

    def print(self, console: Console | None = None) -> None:
        """Print the scores and the correlations."""
        print_limits(self.found, console or Screen())


def limits(
    models: str | Sequence[str],
    tasks: str | Sequence[str],
    output: str | Path | None = None,
    *,
    hold_out: Sequence[str] = (),
    data_dir: str | Path | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Limits:
    """Compare models that are tuned on a mixture of tasks with their base, shown examples in context.

    What was finished in this directory is not done again; further models may be asked there, and join those
    that an earlier call has asked.

    Args:
        models: Each as in a config's `model.name`; base models, as the question goes.
        tasks: Names, suites and task files; all must choose among labels.
        output: The directory; `limits/HASH` if None, of all that is asked but for the models.
        hold_out: Those of the tasks that no model is tuned on; all the same they are tested.
        data_dir: A folder with public data sets; None for the hub.
        seed: Of the mixture, the examples that are shown, and the runs.
        settings: Those of `LimitsSettings`, and dotted keys of the runs' `adapter`, `training` and `model`.
        console: Where to show progress.

    Raises:
        UserError: If anything named does not exist or fit, or the directory holds other settings' answers.
    """
    asked, of_runs = limits_settings(settings or {})
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise UserError("models: name one or more.")
    if len({*names}) < len(names):
        raise UserError("a model is named twice; name each once.")
    placed = {} if data_dir is None else {"data_dir": str(data_dir)}
    config = load_config(None, {"model": names[0], "tasks": tasks, "seed": seed, **placed, **of_runs})
    loaded = load_tasks(config.tasks, data_folder(config))
    cases = make_cases(loaded, hold_out, asked, seed)
    question = _question(asked, of_runs, loaded, hold_out, seed)
    directory = RunDirectory(Path(output) if output is not None else _directory(question))
    with opened(directory, console, "limits") as display:
        _refuse_other(directory, question)
        directory.write_json(ASKED, question)
        learned = write_training(cases, asked, seed, directory.path / "tasks")
        for one in cases:
            display.say(f"{one.name}: {learned[one.name]:,} rows to learn, {len(one.tests):,} tests.")
    of_models = {one["model"]: one for one in (directory.read_json(CONTENT) or {"models": []})["models"]}
    for name in names:
        trial = Trial(name, _folder(directory.path / "models", name), cases, asked)
        trial.tune(directory.path / "tasks", {"seed": seed, **of_runs}, console)
        with opened(directory, console, "limits") as display:
            of_models[name] = trial.measured(display)
    found = list(of_models.values())
    correct_differences(found)
    content = {
        "version": 1,
        "asked": question,
        "tasks": {one.name: _about(one, learned[one.name]) for one in cases},
        "models": found,
        "correlations": correlations_of(found, hold_out),
        "paper_interval": paper_interval(len(cases)),
    }
    with opened(directory, console, "limits"):
        directory.write_json(CONTENT, content)
        directory.write_text("limits.md", limits_markdown(content))
    return Limits(directory.path, content)


def _folder(models: Path, name: str) -> Path:
    """A model's folder: by the last part of its name, or by all of it where another model has that."""
    short = models / model_name(name)
    begun = short / f"run-{DIRECT}" / CONFIG
    free = not begun.exists() or read_resolved(begun).model.name == name
    return short if free else models / path_safe(name)


def _question(
    settings: LimitsSettings,
    of_runs: Mapping[str, Any],
    tasks: Sequence[Task],
    hold_out: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """All that the answers depend on but for the models."""
    return {
        "settings": settings.model_dump(mode="json"),
        "runs": dict(of_runs),
        "tasks": {task.name: fingerprint(task) for task in tasks},
        "hold_out": list(hold_out),
        "seed": seed,
    }


def _directory(question: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    return Path("limits") / digest[:8]


def _refuse_other(directory: RunDirectory, question: Mapping[str, Any]) -> None:
    """See that what the directory holds was asked alike.

    Raises:
        UserError: It was not; names what differs.
    """
    before = directory.read_json(ASKED)
    if before is None or before == question:
        return
    different = [key for key in question if before.get(key) != question[key]]
    raise UserError(
        f"{directory.path} holds answers of other {listed(different)}, which these could not stand beside: "
        "give another --output, or the same settings and tasks as before."
    )


def _about(case: Case, rows: int) -> dict[str, Any]:
    return {
        "tests": len(case.tests),
        "rows": rows,
        "trained": case.trained,
        "labels": len(case.task.labels),
        "prompts": {one.name: one.hash for one in case.prompts},
        "fields": list(case.written.fields),
    }
