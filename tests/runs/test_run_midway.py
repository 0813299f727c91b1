"""A stage that is cut off while it trains goes on from where it was saved, to the last bit."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import forgetmenot
from forgetmenot import signals
from forgetmenot.engine import ranks, training
from forgetmenot.engine.objectives import with_reference
from forgetmenot.engine.training_state import TrainingState
from forgetmenot.methods import METHODS, Method
from forgetmenot.runs import stage_training
from forgetmenot.runs.api import Run
from forgetmenot.runs.midway import Midway
from tests.written import ROOMY

Config = Mapping[str, Any]
Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
InProcesses = Callable[..., list[Any]]
# Two stages of four steps each, of which every second is saved.
SHORT = {"evaluation.limit": 8, "training.limit": 28, "training.save_every": 2}
QUICK = ("adapter-per-task", "der++", "ema", "ewc", "gem", "self-distillation", "si")
METHOD = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


class CutError(BaseException):
    """The end of a process, without one."""


def cut_off(config: Config, after: int) -> None:
    """Run until a state has been saved so many times and the next step is done."""
    saves = itertools.count(1)
    steps: list[int] = []

    class Mortal(Midway):
        def stepped(self, state: TrainingState) -> None:
            if steps:
                raise CutError
            super().stepped(state)

        def save(self, state: TrainingState) -> None:
            super().save(state)
            if next(saves) == after:
                steps.append(state.step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_training, "Midway", Mortal)
        with pytest.raises(CutError):
            forgetmenot.run(config)


def weights(run: Run) -> list[tuple[str, torch.Tensor]]:
    files = sorted((run.path / "stages").rglob("*.safetensors"))
    return [
        (f"{file.relative_to(run.path)}: {name}", value)
        for file in files
        for name, value in load_file(file).items()
    ]


def assert_the_same(one: Run, other: Run, same: Same) -> None:
    same(one, other)
    mine, theirs = dict(weights(one)), dict(weights(other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for log in (one.path / "stages").glob("*/training.jsonl"):
        assert log.read_text() == (other.path / "stages" / log.parent.name / log.name).read_text()
    left = [path.name for path in (other.path / "stages").rglob(".*")]
    assert left == []


def trained_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are done from here on."""
    done: list[int] = []
    original = Midway.record

    def record(self: Midway, row: Mapping[str, Any]) -> None:
        done.append(row["step"])
        original(self, row)

    monkeypatch.setattr(Midway, "record", record)
    return done


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHOD)
def test_every_method_goes_on_within_a_stage(
    tiny: Config, tmp_path: Path, same: Same, monkeypatch: pytest.MonkeyPatch, method: str, precision: str
) -> None:
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": method, "training.precision": precision}
    config |= ROOMY.get(method, {})
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    stages = len(undisturbed.results["stages"]) - 1
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 2 if stages > 1 else 1)
    done = trained_steps(monkeypatch)
    resumed = forgetmenot.run(config)
    first = 3 if stages > 1 or method == "joint" else 1
    assert done[0] == first, "the steps before the save are not done again"
    assert_the_same(undisturbed, resumed, same)


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "full"},
        {"per_stage": "new"},
        {"per_stage": "merge"},
        {"kind": "prompt", "tokens": 3},
        {"kind": "bridge", "augmenting": "quickstart-small"},
        {"layers": {"top": 1}},
        {"dropout": 0.2},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_every_adapter_goes_on_within_a_stage(
    tiny: Config, tmp_path: Path, same: Same, adapter: dict[str, Any]
) -> None:
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "adapter": adapter}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    for after in (1, 1):  # in the first stage, and again in the second
        cut_off(config, after)
    assert_the_same(undisturbed, forgetmenot.run(config), same)


@pytest.mark.parametrize("method", ["ema", "gem", "self-distillation", "si"])
def test_what_a_method_changes_in_a_stage_matters(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Were it not taken up, another model would come out: so the test above would fail."""
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": method, "training.learning_rate": 0.01}
    if method == "gem":
        config["method"] = {"name": "gem", "batch": 2}
    config |= ROOMY.get(method, {})
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 2)
    monkeypatch.setattr(METHODS[method], "load_training_state", lambda self, state: None)
    forgotten = forgetmenot.run(config)
    mine, theirs = dict(weights(undisturbed)), dict(weights(forgotten))
    assert not all(torch.equal(mine[name], theirs[name]) for name in mine)


class Forgetful(Method):
    """Changes itself, and does not say how."""

    def begin(self, learner: Any, stage: Any) -> None:
        self.steps = 0

    def stepped(self, learner: Any) -> None:
        self.steps += 1
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("every", [2, "10m", None])
def test_a_method_that_does_not_say_what_it_changes_is_not_saved_within_a_stage(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: Any
) -> None:
    monkeypatch.setitem(METHODS, "forgetful", Forgetful)
    config = {
        **tiny,
        **SHORT,
        "tasks": tiny["tasks"][:1],
        "method": "forgetful",
        "training.save_every": every,
    }
    with pytest.raises(
        signals.Interrupted, match=r"at step 3 of 4, not saved .method Forgetful changes after"
    ):
        forgetmenot.run({**config, "output": str(tmp_path / "run")})
    assert not list(tmp_path.glob("run/stages/*midway*"))


def test_pairs_go_on_within_a_stage(go: Go, make_task: Any, same: Same, tmp_path: Path, tiny: Config) -> None:
    rows = [{"word": f"word {k}", "good": f"yes {k}", "bad": f"no {k}"} for k in range(40)]
    prompts = {"default": {"template": "Say of {{ word }}:"}}
    pairs = make_task("manners", rows[:28], rows[28:], chosen="good", rejected="bad", prompts=prompts)
    config = {**tiny, **SHORT, "tasks": [str(pairs)], "training.learning_rate": 0.005}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 1)
    assert_the_same(undisturbed, forgetmenot.run(config), same)


def test_a_signal_does_not_wait_for_what_comes_before_the_first_step(
    tiny: Config, tmp_path: Path, make_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's likelihoods of many pairs take as long as scoring them."""
    rows = [{"word": f"word {k}", "good": f"yes {k}", "bad": f"no {k}"} for k in range(16)]
    prompts = {"default": {"template": "Say of {{ word }}:"}}
    pairs = make_task("manners", rows[:8], rows[8:], chosen="good", rejected="bad", prompts=prompts)
    through = []

    def slow(learner: Any, examples: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        through.append(examples)
        return with_reference(learner, examples)

    monkeypatch.setattr(training, "with_reference", slow)
    with pytest.raises(signals.Interrupted):
        forgetmenot.run({**tiny, **SHORT, "tasks": [str(pairs)], "output": str(tmp_path / "run")})
    assert not through


def test_two_processes_go_on_within_a_stage(
    tiny: Config, tmp_path: Path, same: Same, in_processes: InProcesses
) -> None:
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": "si"}
    undisturbed, _ = in_processes(
        lambda: forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    )
    config["output"] = str(tmp_path / "cut")
    in_processes(lambda: cut_off(config, 2))
    resumed, _ = in_processes(lambda: forgetmenot.run(config))
    assert_the_same(undisturbed, resumed, same)


def test_a_sharded_model_goes_on_within_a_stage(
    tiny: Config,
    tmp_path: Path,
    same: Same,
    in_processes: InProcesses,
    join_sharded: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "join", join_sharded)
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "adapter.kind": "full"}
    undisturbed, _ = in_processes(
        lambda: forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    )
    config["output"] = str(tmp_path / "cut")
    in_processes(lambda: cut_off(config, 2))
    shutil.copytree(tmp_path / "cut", tmp_path / "damaged")
    for name in ("cut", "damaged"):
        parts = list((tmp_path / name / "stages").glob(".02-colour.midway.safetensors.2/*.distcp"))
        assert parts
        if name == "damaged":
            parts[0].unlink()
        config["output"] = str(tmp_path / name)
        resumed, _ = in_processes(lambda: forgetmenot.run(config))
        assert_the_same(undisturbed, resumed, same)


def _damage_tensors(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _of_another_stage(path: Path) -> None:
    save_file(load_file(path), path, {"position": json.dumps({"step": 2})})


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_number_in(path: Path, behind: bytes) -> None:
    """Flip the lowest bit of the first digit behind some text."""
    content = bytearray(path.read_bytes())
    start = content.index(behind) + len(behind)
    place = next(k for k in range(start, len(content)) if content[k : k + 1].isdigit())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": _damage_tensors,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "no position": lambda path: save_file(load_file(path), path),
    "another stage's": _of_another_stage,
    "a shorter log": lambda path: path.with_name(".01-animal.training.jsonl").write_text("{}\n"),
    "a bit of the schedule": lambda path: _a_number_in(path, b"last_epoch"),
    "a bit of the counts": lambda path: _a_number_in(path, b"computed"),
    "a bit of the log": lambda path: _a_number_in(path.with_name(".01-animal.training.jsonl"), b"loss"),
    "no log": lambda path: path.with_name(".01-animal.training.jsonl").unlink(),
    "a folder": _folder,
    "a folder for the log": lambda path: _folder(path.with_name(".01-animal.training.jsonl")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_said_and_the_stage_begins_anew(
    tiny: Config, tmp_path: Path, same: Same, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    from rich.console import Console

    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:1]}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 1)
    DAMAGES[damage](tmp_path / "cut/stages/.01-animal.midway.safetensors")
    resumed = forgetmenot.run(config, console=Console(width=200))
    assert ".01-animal.midway.safetensors is damaged or of another run; the stage begins anew" in (
        capsys.readouterr().out
    )
    assert_the_same(undisturbed, resumed, same)


def test_saving_changes_nothing(go: Go, same: Same) -> None:
    small = {"evaluation.limit": 8, "training.limit": 16}
    one, other = (go(f"every-{k}", {**small, "training.save_every": k}) for k in (1, None))
    assert_the_same(one, other, same)


def test_when_to_save_is_no_part_of_a_run(go: Go) -> None:
    """It may be changed between two attempts, and does not name the run."""
    small = {"evaluation.limit": 8, "training.limit": 8}
    first = go("run", {**small, "training.save_every": "30s"})
    assert go("run", {**small, "training.save_every": None}).results == first.results


@pytest.mark.parametrize("wrong", ["10 steps", "0m", "1.5h", "10 minutes", 0, -3, True])
def test_when_to_save_is_checked(go: Go, wrong: Any) -> None:
    with pytest.raises(forgetmenot.UserError, match=r"training.save_every"):
        go("run", {"training.save_every": wrong})
