"""The pilot of a study, and a protocol that stays what it was when the first run finished."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.record.predictions import NOT_FINITE
from forgetmenot.studies.config import StudyConfig, load_study
from forgetmenot.studies.pilot import judge_pilot, pilot_runs
from forgetmenot.studies.study import study
from tests.report.compared_runs import forgetful, write_answers

CLAIM = {
    "says": "joint ends higher.",
    "conditions": [{"figure": "final mean", "weights": {"joint": 1, "sequential": -1}}],
}


def _study(folder: Path, protocol: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> StudyConfig:
    return load_study(
        {
            "base": {"tasks": "qs-sentiment,qs-inference", **(base or {})},
            "grid": {"method": ["sequential", "joint"], "seed": [0, 1]},
            "protocol": dict(protocol),
            "output": str(folder / "study"),
        }
    )


def test_the_runs_of_a_pilot_are_apart_from_the_study(tmp_path: Path) -> None:
    runs = pilot_runs(_study(tmp_path, {"pilot": {"seeds": [100, 101]}}, {"evaluation": {"limit": 7}}))
    assert [(run.config.method.name, run.config.seed) for run in runs] == [
        (method, seed) for method in ("joint", "sequential") for seed in (100, 101)
    ]
    assert {run.config.evaluation.split for run in runs} == {"select"}
    assert {run.config.evaluation.limit for run in runs} == {7}
    assert {run.config.directory.parent for run in runs} == {tmp_path / "study" / "pilot"}
    assert pilot_runs(_study(tmp_path, {})) == []
    with pytest.raises(UserError, match=r"protocol.pilot.seeds: 1 is a seed of the study too"):
        pilot_runs(_study(tmp_path, {"pilot": {"seeds": [1, 100]}}))


def test_seeds_are_the_runs_own_wherever_they_are_named(tmp_path: Path) -> None:
    def pilot(grid: Mapping[str, Any], seeds: list[int]) -> list[Any]:
        content = {
            "base": {"tasks": "qs-sentiment"},
            "grid": dict(grid),
            "protocol": {"pilot": {"seeds": seeds}},
        }
        return pilot_runs(load_study({**content, "output": str(tmp_path / "study")}))

    joined = {"method, seed": [["sequential", 5], ["joint", 6]]}
    with pytest.raises(UserError, match="5 is a seed of the study too"):
        pilot(joined, [5])
    assert len(pilot({"seed": [1, 2]}, [0])) == 2, "the base's seed is none of the study's"
    for varied in ({"tasks": ["qs-sentiment", "qs-inference"]}, {"model, seed": [["quickstart", 3]]}):
        with pytest.raises(UserError, match=r"the grid varies (tasks|model), and a pilot has one"):
            pilot(varied, [7])


@pytest.mark.parametrize(
    ("kept", "joint", "said"),
    [
        (0.5, 0.9, None),
        (0.9, 0.9, "too little is lost"),
        (0.5, 0.5, "too little is learned"),
    ],
)
def test_a_pilot_asks_for_something_learned_and_something_lost(
    tmp_path: Path, kept: float, joint: float, said: str | None
) -> None:
    runs = pilot_runs(_study(tmp_path, {"pilot": {"seeds": [100, 101, 102]}}))
    for k, run in enumerate(runs):
        levels = (joint, joint) if run.config.method.name == "joint" else (0.9, kept)
        right = forgetful(seed=k, learned=levels[0], kept=levels[1], n=400)
        if joint == 0.5:
            right = {task: np.sort(rows, axis=1) for task, rows in right.items()}
        write_answers(run.config.directory, right)
    if said is None:
        passed = judge_pilot(runs, {})
        assert passed.startswith("The pilot passes: joint ends at 0.896, above sequential by +0.203")
        return
    with pytest.raises(UserError, match=f"{said}.*Seen: joint ends at"):
        judge_pilot(runs, {})


def test_a_failed_pilot_ends_the_study_with_its_reason(tmp_path: Path) -> None:
    runs = pilot_runs(_study(tmp_path, {"pilot": {"seeds": [100]}}))
    with pytest.raises(UserError, match=r"method=joint, seed=100.* failed\. It broke"):
        judge_pilot(runs, {runs[0].config.directory: (2, "It broke.")})


def test_a_pilot_that_has_diverged_is_said_and_judges_nothing(tmp_path: Path) -> None:
    runs = pilot_runs(_study(tmp_path, {"pilot": {"seeds": [100]}}))
    for run in runs:
        write_answers(run.config.directory, forgetful(seed=1))
    file = runs[0].config.directory / "results.json"
    results = json.loads(file.read_text())
    results["matrix"][2][0] = None
    gap = {"stage": results["stages"][2]["name"], "task": "a", "reason": f"{NOT_FINITE}."}
    file.write_text(
        json.dumps({**results, "readings": [{"matrix": results["matrix"], "missing": [gap]}]}),
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"protocol.pilot: the run joint-100 has no scores"):
        judge_pilot(runs, {})


def test_a_study_ends_at_a_pilot_in_which_nothing_is_learned(
    started: list[str], tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    base = {
        **tiny,
        "tasks": tiny["tasks"][:2],
        "evaluation": {"limit": 8},
        "training": {"limit": 8, "batch_size": 8},
    }
    config = _study(tmp_path, {"pilot": {"seeds": [100]}}, base)
    with pytest.raises(UserError, match=r"protocol.pilot: joint is not surely above"):
        study(config)
    assert sorted(started) == ["joint-100", "sequential-100"], "no run of the study was begun"


def test_claims_cannot_change_once_a_run_has_finished(
    started: list[str], tiny: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {
        **tiny,
        "tasks": tiny["tasks"][:2],
        "evaluation": {"limit": 8},
        "training": {"limit": 8, "batch_size": 8},
    }
    finished = study(_study(tmp_path, {"claims": [CLAIM]}, base))
    [judged] = finished.results["claims"]
    assert judged["says"] == CLAIM["says"]
    assert judged["conditions"][0]["seeds"] == 2
    assert finished.results["conclusions"][0].startswith("Stated before and ")
    page = (finished.path / "report.html").read_text(encoding="utf-8")
    assert 'href="runs/' in page, "each run is linked"
    (finished.path / "report.html").unlink()
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(finished.path)])
    assert (finished.path / "report.html").read_text(encoding="utf-8") == page
    assert "Stated before and " in capsys.readouterr().out
    changed = {**CLAIM, "says": "joint ends a little higher."}
    with pytest.raises(UserError, match=r"protocol: it is not that of .*4 of the runs have finished"):
        study(_study(tmp_path, {"claims": [changed]}, base))
    study(_study(tmp_path, {"claims": [CLAIM]}, base))  # the same again is fine
    for done in (tmp_path / "study").glob("runs/*/results.json"):
        done.unlink()
    study(_study(tmp_path, {"claims": [changed]}, base))  # nothing had been seen of it
    assert len(started) == 8
