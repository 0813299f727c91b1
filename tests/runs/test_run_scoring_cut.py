"""A stage that is cut off after its training: that is not done again, nor is a pack scored twice."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot.engine import forward, gradients, readings
from forgetmenot.errors import PeerLostError
from forgetmenot.evaluation import answer_log
from forgetmenot.runs import directory, loop, session
from forgetmenot.runs.api import Run
from forgetmenot.runs.midway import Midway
from tests.runs.test_run_midway import SHORT, CutError, assert_the_same, trained_steps

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]
InProcesses = Callable[..., list[Any]]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several to a task, each of which is kept at once."""
    monkeypatch.setattr(session, "node_budget", lambda *_: 60)
    monkeypatch.setattr(answer_log, "EVERY", 0.0)


def passes(config: Config, cut_after: int | None = None) -> tuple[Run | None, int, int]:
    """A run, cut off after so many scored packs; how many were scored, and steps done."""
    count, steps = itertools.count(1), []
    scored = forward.log_likelihoods
    record = Midway.record

    def counted(*arguments: Any, **named: Any) -> Any:
        if next(count) - 1 == cut_after:
            raise CutError
        return scored(*arguments, **named)

    def recorded(self: Midway, row: Mapping[str, Any]) -> None:
        steps.append(row)
        record(self, row)

    run = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "log_likelihoods", counted)
        patch.setattr(readings, "log_likelihoods", counted)
        patch.setattr(Midway, "record", recorded)
        try:
            run = forgetmenot.run(config)
        except (CutError, PeerLostError):
            assert cut_after is not None
    return run, next(count) - 1, len(steps)


METHODS = ["sequential", "ema", "adapter-per-task", "progressive-prompts", "moe-lora", "ties"]


@pytest.mark.parametrize("method", METHODS)
def test_no_pack_is_scored_twice(tiny: Config, tmp_path: Path, same: Same, method: str) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2], "method": method}
    undisturbed, whole, steps = passes({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    # The guard asks before each attempt; training passes through the same function.
    _, _, before = passes(config, whole - 3)
    resumed, second, after = passes(config)
    assert undisturbed is not None
    assert resumed is not None
    same(undisturbed, resumed)
    assert before == steps
    assert after == 0, "what was trained is not trained again"
    assert second < whole / 2
    assert [path.name for path in (resumed.path / "stages").rglob(".*")] == []


def test_calibrated_and_normalised_scores_go_on(tiny: Config, tmp_path: Path, same: Same) -> None:
    rules = {"evaluation.calibration": "contextual", "evaluation.normalization": "unconditional"}
    config = {**tiny, **SMALL, **rules, "tasks": tiny["tasks"][:2]}
    undisturbed, whole, _ = passes({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    for cut in (whole - 2, whole // 2):
        passes(config, cut)
    resumed, _, _ = passes(config)
    assert undisturbed is not None
    assert resumed is not None
    same(undisturbed, resumed)


@pytest.mark.parametrize(
    "kind", [{}, {"adapter.per_stage": "merge"}, {"adapter.kind": "full"}], ids=["lora", "merge", "full"]
)
def test_answers_after_a_training_for_one_task_are_not_taken_for_the_stages(
    kind: Config, tiny: Config, tmp_path: Path, same: Same
) -> None:
    """The weights change from cell to cell; cut off in the base's first cells, and in the last stage's."""
    config = {**tiny, **SMALL, **kind, "tasks": tiny["tasks"][:2], "training.learning_rate": 0.01}
    config["evaluation.readings"] = [{"realign": 8}]
    undisturbed, whole, _ = passes({**config, "output": str(tmp_path / "undisturbed")})
    assert undisturbed is not None
    told = [path.read_bytes() for path in sorted(undisturbed.path.rglob("predictions*.parquet"))]
    for cut in (4, whole // 8, whole - 3, whole // 5 * 4):
        config["output"] = str(tmp_path / f"cut-{cut}")
        passes(config, cut)
        resumed, _, _ = passes(config)
        assert resumed is not None
        assert [path.read_bytes() for path in sorted(resumed.path.rglob("predictions*.parquet"))] == told
        same(undisturbed, resumed)


def test_each_of_two_processes_keeps_its_own(
    tiny: Config, tmp_path: Path, same: Same, in_processes: InProcesses
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2]}
    beside = {**config, "output": str(tmp_path / "undisturbed")}
    (undisturbed, whole, _), _ = in_processes(lambda: passes(beside))
    config["output"] = str(tmp_path / "cut")
    in_processes(lambda: passes(config, whole - 1))
    logs = {path.name for path in (tmp_path / "cut/stages").glob(".*.jsonl")}
    assert logs >= {".02-colour.answers.jsonl", ".02-colour.answers.1.jsonl"}
    (resumed, second, steps), _ = in_processes(lambda: passes(config))
    same(undisturbed, resumed)
    assert steps == 0
    assert second < whole * 2 / 3


def cut_before(config: Config, owner: Any, name: str, within: str) -> None:
    """Run until `owner.name` would be called with the text `within` in its first argument."""
    original = getattr(owner, name)

    def mortal(first: Any, *others: Any, **named: Any) -> Any:
        if within in str(first):
            raise CutError
        return original(first, *others, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, mortal)
        with pytest.raises(CutError):
            forgetmenot.run(config)


MOMENTS = {
    "before its answers are written": (loop, "write_predictions"),
    "before its scores are written": (Path, "write_text"),
    "before it is sealed": (directory, "write_seal"),
    "before its seal is on the disk": (directory, "sync"),
    "before its folder appears": (directory, "put_aside"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_trained_is_not_trained_again(
    tiny: Config, tmp_path: Path, same: Same, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config = {**tiny, **SHORT, "training.save_every": None, "tasks": tiny["tasks"][:1]}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    within = {"write_text": "01-animal.writing/scores.json", "sync": "01-animal.writing/seal.json"}
    owner, name = MOMENTS[moment]
    cut_before(config, owner, name, within.get(name, "01-animal"))
    done = trained_steps(monkeypatch)
    resumed = forgetmenot.run(config)
    assert done == []
    assert_the_same(undisturbed, resumed, same)


def test_no_part_takes_the_kept_scores_of_another(tiny: Config, tmp_path: Path, same: Same) -> None:
    """Each adapter is asked the same content-free example: the packs are equal, and the answers are not."""
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": "adapter-per-task"}
    config |= {"evaluation.calibration": "contextual", "training.learning_rate": 0.01}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_before(config, loop, "write_predictions", "02-colour")
    assert_the_same(undisturbed, forgetmenot.run(config), same)
