"""Sequential, single and joint runs, and what a user's own method may rely on."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import forgetmenot
import forgetmenot.methods
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import METHODS, Method, Options, Stage, make_method
from forgetmenot.prompting import Encoded
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


def _likelihoods(run: Run, stage: int) -> list[list[float]]:
    values: list[list[float]] = run.predictions(stage)["log_likelihoods"].map(list).tolist()
    return values


def test_joint_is_one_stage_over_all_tasks(go: Go, finished: Run) -> None:
    joint = go("joint", {"method": "joint"})
    assert [stage["name"] for stage in joint.results["stages"]] == ["00-base", "01-joint"]
    assert joint.results["stages"][1]["trains_on"] == ["animal", "colour", "size"]
    assert joint.results["matrix"][0] == finished.results["matrix"][0]
    steps = [json.loads(line) for line in (joint.path / "stages/01-joint/training.jsonl").open()]
    assert sum(step["examples"] for step in steps) == 3 * 36
    summary = joint.summary()
    assert summary["average_performance"] == pytest.approx(joint.matrix.iloc[1].mean())
    assert summary["backward_transfer"] is None
    assert summary["reasons"]["backward_transfer"]


@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"per_stage": "merge"}], ids=["full", "lora"])
def test_single_learns_each_task_as_if_alone(go: Go, adapter: dict[str, str]) -> None:
    """Alone: the stages before learned from no example. (A stage's draws come from its number.)"""
    settings = {**SMALL, "adapter": adapter}
    single = go("single", {**settings, "method": "single"})
    assert [stage["follows"] for stage in single.results["stages"][1:]] == [False] * 3
    sequential = go("sequential", settings)
    assert _likelihoods(single, 1) == _likelihoods(sequential, 1)
    assert _likelihoods(single, 3) != _likelihoods(sequential, 3)
    alone = go("alone", {**settings, "training.limit": {"animal": 0, "colour": 0, "size": 16}})
    assert _likelihoods(alone, 2) == _likelihoods(single, 0)
    assert _likelihoods(alone, 3) == _likelihoods(single, 3)


def test_a_run_of_one_task_has_no_backward_transfer(go: Go, tiny: Mapping[str, Any]) -> None:
    summary = go("one", {**SMALL, "tasks": tiny["tasks"][:1]}).summary()
    assert summary["backward_transfer"] is None
    assert summary["learning_accuracy"] is not None


class Recorder(Method):
    """Every hook, each noting that it was called; learns an average of its weights and answers with it."""

    class Options(Options):
        share: float = 0.5

    calls: ClassVar[list[str]] = []
    die_in: ClassVar[str] = ""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.remembered: list[str] = []
        self.steps = 0
        self.total = torch.zeros(3)

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.die_in:
            os.kill(os.getpid(), signal.SIGKILL)

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        self.note("stages")
        return super().stages(tasks)

    def start(self, stage: Stage) -> Literal["previous", "base"]:
        return "previous"

    def adapt(self, learner: Learner, stage: Stage) -> None:
        assert learner.trainable()
        self.note(f"adapt {stage.name}")

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Encoded]:
        """Half of the stage's own."""
        self.note(f"examples {stage.name}")
        (own,) = stage.data.values()
        assert stage.tasks == tuple(stage.data)
        return own[::2]

    def begin(self, learner: Learner, stage: Stage) -> None:
        self.note(f"begin {stage.name}")
        self.average = learner.snapshot()

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        self.note("loss")
        return super().loss(learner, batch)

    def penalty(self, learner: Learner) -> Tensor | None:
        self.note("penalty")
        values = [p.square().sum() for p in learner.trainable().values()]
        return 0.01 * torch.stack(values).sum()

    def gradients(self, learner: Learner) -> None:
        self.note("gradients")
        assert all(p.grad is not None for p in learner.trainable().values())

    def stepped(self, learner: Learner) -> None:
        self.note("stepped")
        self.steps += 1
        self.total += 0.1
        for name, value in learner.trainable().items():
            self.average[name].lerp_(value.detach(), self.options.share)

    def end(self, learner: Learner, stage: Stage) -> None:
        self.note(f"end {stage.name}")
        self.remembered.append(stage.name)

    @contextmanager
    def answering(self, learner: Learner) -> Iterator[None]:
        self.note("answering")
        if not self.remembered:
            yield
            return
        with learner.with_weights(self.average):
            yield
        self.note("answered")

    def state_dict(self) -> dict[str, Any]:
        self.note("state_dict")
        average = {f"average.{name}": value for name, value in self.average.items()}
        return {"remembered": self.remembered, "steps": self.steps, "total": self.total, **average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.note("load_state_dict")
        self.remembered, self.steps, self.total = list(state["remembered"]), state["steps"], state["total"]
        self.average = {
            name.removeprefix("average."): value
            for name, value in state.items()
            if name.startswith("average.")
        }


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """The method, under the name `recorder`, with nothing noted yet."""
    monkeypatch.setitem(METHODS, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder


def test_every_hook_is_called_in_its_place(recorder: type[Recorder], go: Go, tiny: Mapping[str, Any]) -> None:
    go("one", {**SMALL, "method": "recorder", "tasks": tiny["tasks"][:2], "training.batch_size": 4})
    step = ["loss", "penalty", "gradients", "stepped"]

    def stage(name: str) -> list[str]:
        return [
            *(f"{hook} {name}" for hook in ("adapt", "examples", "begin")),
            *(step * 2),  # half of 16 examples, four at a time
            *(f"end {name}", "state_dict", "answering", "answered"),
        ]

    assert recorder.calls == [
        *("stages", "answering"),
        *stage("01-animal"),
        *("load_state_dict", *stage("02-colour")),
    ]


def test_the_penalty_comes_once_a_step_however_the_batch_is_cut(recorder: type[Recorder], go: Go) -> None:
    whole = go("whole", {**SMALL, "method": "recorder"})
    once = [recorder.calls.count(name) for name in ("loss", "penalty", "gradients", "stepped")]
    recorder.calls.clear()
    parts = go("parts", {**SMALL, "method": "recorder", "training.micro_batch": 2})
    often = [recorder.calls.count(name) for name in ("loss", "penalty", "gradients", "stepped")]
    assert once == [3, 3, 3, 3]
    assert often == [3 * 4, 3, 3, 3]
    assert np.allclose(_flat(parts), _flat(whole), rtol=1e-4)


def test_what_a_method_adds_is_in_what_is_learned(recorder: type[Recorder], go: Go, finished: Run) -> None:
    one = go("one", {"method": {"name": "recorder", "share": 0.25}})
    other = go("other", {"method": {"name": "recorder", "share": 0.75}})
    assert _likelihoods(one, 1) != _likelihoods(other, 1) != _likelihoods(finished, 1)


@pytest.mark.parametrize(
    "moment", ["begin 02-colour", "end 02-colour", "state_dict", "begin 03-size", "answered"]
)
def test_a_method_knows_after_a_kill_what_it_knew(
    recorder: type[Recorder], tiny: Mapping[str, Any], tmp_path: Path, same: Same, moment: str
) -> None:
    config = {**tiny, **SMALL, "method": "recorder"}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})

    def child() -> None:
        Recorder.die_in = moment
        forgetmenot.run({**config, "output": str(tmp_path / "killed")})

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    same(undisturbed, forgetmenot.run({**config, "output": str(tmp_path / "killed")}))
    state = [
        json.loads((tmp_path / name / "stages/03-size/method.json").read_text())
        for name in ("undisturbed", "killed")
    ]
    assert state[0] == state[1] == {"remembered": ["01-animal", "02-colour", "03-size"], "steps": 3}


def test_who_comes_later_gets_the_answers_of_the_method(
    recorder: type[Recorder],
    go: Go,
    tiny: Mapping[str, Any],
    same: Same,
    tmp_path: Path,
    answers_alone: Callable[[Path, Run, int], None],
) -> None:
    """A grown list, a rescore, an export: all with the averaged weights."""
    settings = {**SMALL, "method": "recorder"}
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    grown = go("grown", settings)
    same(go("direct", settings), grown)
    _, reading = rescore(grown.path)
    assert reading["matrix"] == grown.results["matrix"]
    export(grown.path, "2", tmp_path / "out")
    answers_alone(tmp_path / "out", grown, 2)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"name": "freeze", "layers": [9]}, r"method\.layers: 9: this model has 2 layers"),
        ({"name": "adapter-per-task", "layer": 9}, r"method\.layer: this model has 2 layers, and no layer 9"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_before_anything_is_scored(
    go: Go, tmp_path: Path, method: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        go("refused", {"method": method, "adapter.per_stage": "new"})
    assert not (tmp_path / "refused/stages/00-base").exists()


def test_options_of_a_method_are_checked(recorder: type[Recorder], go: Go) -> None:
    method = make_method("recorder", {"share": 0.1}, 7)
    assert (method.options.share, method.seed) == (0.1, 7)
    with pytest.raises(UserError, match=r"method\.shares: there is no such key\. Did you mean 'share'"):
        go("one", {"method": {"name": "recorder", "shares": 1}})
    with pytest.raises(UserError, match=r"method\.share: .*number.*'much'"):
        go("one", {"method": {"name": "recorder", "share": "much"}})


def test_a_method_of_another_package_is_found(
    go: Go, finished: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "their_method.py").write_text(
        "from forgetmenot.methods import Method\n\n\nclass Theirs(Method):\n    '''Theirs.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("theirs", "their_method:Theirs", group)] if group == "forgetmenot.methods" else []

    monkeypatch.setattr(forgetmenot.methods, "entry_points", entry_points)
    run = go("theirs", {"method": "theirs"})
    assert run.results["method"] == "theirs"
    assert run.results["matrix"] == finished.results["matrix"]
    with pytest.raises(UserError, match=r"there is no method 'their'\. Did you mean 'theirs'\?"):
        go("other", {"method": "their"})


def _flat(run: Run) -> np.ndarray:
    return np.concatenate([np.concatenate(_likelihoods(run, k)) for k in range(4)])
