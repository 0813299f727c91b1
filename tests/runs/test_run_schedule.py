"""Replay on a schedule: what a run says of it, and going on within a stage, in processes and sharded."""

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forgetmenot
from forgetmenot.engine import ranks
from forgetmenot.runs.api import Run
from tests.runs.test_run_midway import assert_the_same, cut_off

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]
InProcesses = Callable[..., list[Any]]
SMALL = {"evaluation.limit": 8, "training.limit": 32, "training.batch_size": 4, "training.epochs": 2}
MIXED = {"name": "replay", "share": 0.2, "memory": 1.0}
MODEL_TIME = {**MIXED, "schedule": "model-time", "day": 1}


def steps(run: Run, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "stages" / stage / "training.jsonl").open()]


@pytest.mark.parametrize("schedule", ["even", "increasing", "model-time"])
def test_a_run_says_what_was_rehearsed_and_when(tiny: Config, tmp_path: Path, schedule: str) -> None:
    method = {**MIXED, "schedule": schedule, **({} if schedule == "even" else {"day": 1})}
    config = {**tiny, **SMALL, "method": method, "output": str(tmp_path / "run")}
    run = forgetmenot.run(config)
    tokens = run.results["cost"]["answer_tokens"]
    assert list(tokens) == ["01-animal", "02-colour", "03-size"]
    assert tokens["01-animal"]["rehearsed"] == 0
    for name, counted in tokens.items():
        rows = steps(run, name)
        assert (counted["new"] + counted["rehearsed"]) == sum(row["tokens"] for row in rows)
        quarters = [[row for k, row in enumerate(rows) if 4 * k // len(rows) == q] for q in range(4)]
        assert counted["phases"] == [
            [sum(row["tokens"] - row["rehearsed"] for row in some), sum(row["rehearsed"] for row in some)]
            for some in quarters
        ]
    rows = steps(run, "03-size")
    assert sum(row["examples"] for row in rows) == 2 * (32 + 8)
    phases = tokens["03-size"]["phases"]
    if schedule != "even":
        assert phases[0][1] > phases[1][1] >= phases[2][1]
        came = [row["step"] for row in rows if row["rehearsed"]]
        gaps = [b - a for a, b in pairwise(came)]
        assert gaps == sorted(gaps) or schedule == "model-time"
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert report.count("answer tokens rehearsed: 2") == 2
    assert "rehearsed (of the stages that rehearse 2" in report


def test_every_schedule_learns_from_the_same_tokens(tiny: Config, tmp_path: Path) -> None:
    found = []
    for schedule in ("even", "increasing", "model-time"):
        config = {
            **tiny,
            **SMALL,
            "method": {**MIXED, "schedule": schedule},
            "output": str(tmp_path / schedule),
        }
        run = forgetmenot.run(config)
        tokens = run.results["cost"]["answer_tokens"]
        found.append({name: (one["new"], one["rehearsed"]) for name, one in tokens.items()})
        rehearsed = (run.path / "stages/03-size/rehearsed.jsonl").read_text()
        assert rehearsed == (tmp_path / "even/stages/03-size/rehearsed.jsonl").read_text()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", [MODEL_TIME, {**MODEL_TIME, "name": "der++", "schedule": "increasing"}])
def test_a_schedule_goes_on_within_a_stage(
    tiny: Config, tmp_path: Path, same: Same, method: Config, precision: str
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2], "method": method, "training.precision": precision}
    config |= {"training.save_every": 3}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 7)  # in the second stage, behind its first replays
    assert list(tmp_path.glob("cut/stages/.02-colour.midway*"))
    assert_the_same(undisturbed, forgetmenot.run(config), same)


def test_model_time_that_is_not_taken_up_gives_another_order(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above would fail."""
    from forgetmenot.methods.replay import Replay

    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2], "method": MODEL_TIME, "training.save_every": 3}
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 7)
    monkeypatch.setattr(Replay, "load_training_state", lambda self, state: None)
    with pytest.raises(IndexError):
        forgetmenot.run(config)


def test_two_processes_replay_at_the_same_times(
    tiny: Config, tmp_path: Path, in_processes: InProcesses
) -> None:
    config = {**tiny, **SMALL, "method": MODEL_TIME}
    alone = forgetmenot.run({**config, "output": str(tmp_path / "one")})
    first, second = in_processes(lambda: forgetmenot.run({**config, "output": str(tmp_path / "two")}))
    assert first.results == second.results
    assert [row["rehearsed"] for row in steps(first, "03-size")] == [
        row["rehearsed"] for row in steps(alone, "03-size")
    ]
    mine, wanted = (np.concatenate(list(run.predictions(3)["log_likelihoods"])) for run in (first, alone))
    assert np.abs(mine - wanted).max() <= 2e-3


def test_a_sharded_model_measures_its_time_over_all_processes(
    tiny: Config,
    tmp_path: Path,
    in_processes: InProcesses,
    join_sharded: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2], "method": MODEL_TIME, "adapter.kind": "full"}
    alone = forgetmenot.run({**config, "output": str(tmp_path / "one")})
    monkeypatch.setattr(ranks, "join", join_sharded)
    first, second = in_processes(lambda: forgetmenot.run({**config, "output": str(tmp_path / "two")}))
    assert first.results == second.results
    assert [row["rehearsed"] for row in steps(first, "02-colour")] == [
        row["rehearsed"] for row in steps(alone, "02-colour")
    ]
