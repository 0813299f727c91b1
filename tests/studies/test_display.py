"""The display of a study, as a user sees it."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from forgetmenot.runs.directory import RunDirectory
from forgetmenot.studies.config import StudyRun, expand_study, load_study
from forgetmenot.studies.display import StudyDisplay, print_plan


@pytest.fixture
def runs(tmp_path: Path) -> list[StudyRun]:
    return expand_study(load_study({"grid": {"seed": [0, 1, 2, 3]}, "output": str(tmp_path / "study")}))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr("forgetmenot.studies.display.time.monotonic", lambda: now[0])
    return now


def test_off_a_terminal_each_run_that_ends_is_a_line(runs: list[StudyRun], clock: list[float]) -> None:
    screen = io.StringIO()
    with StudyDisplay(Console(file=screen, width=80), total=4, pending=3) as display:
        display.started(runs[0])
        display.started(runs[1])
        clock[0] = 90
        display.ended(runs[0], None)
        display.started(runs[2])
        clock[0] = 180
        display.ended(runs[1], "seed: wrong.")
        display.ended(runs[2], None)
    first, second, third = screen.getvalue().splitlines()
    assert first.startswith("seed=0: done in 1 min 30 s (2 of 4 done, 1 running, 40 runs/h, ends about ")
    assert second.startswith(
        "seed=1: failed in 3 min 00 s: seed: wrong. (2 of 4 done, 1 failed, 1 running, 40 runs/h, ends about "
    )
    assert third == "seed=2: done in 1 min 30 s (3 of 4 done, 1 failed)"


def test_on_a_terminal_each_run_at_work_is_a_line_with_its_stage(
    runs: list[StudyRun], clock: list[float]
) -> None:
    screen = io.StringIO()
    with StudyDisplay(Console(file=screen, width=80, force_terminal=True), 4, 4) as display:
        display.started(runs[0])
        display.started(runs[1])
        directory = runs[0].config.directory
        directory.mkdir(parents=True)
        RunDirectory(directory).event("committed", stage="00-base")
        RunDirectory(directory).event("began", stage="01-sst2")
        clock[0] = 61
        console = Console(width=80, file=io.StringIO(), record=True)
        console.print(display._lines())
        display.ended(runs[0], None)
        display.ended(runs[1], None)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert lines == [
        "seed=0 began 01-sst2 1 min 01 s",
        "seed=1 starting 1 min 01 s",
        "0 of 4 done, 2 running",
    ]
    assert "2 of 4 done" in screen.getvalue()


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        (1, "One seed: the study will speak of these checkpoints, not of methods or models; give several."),
        (5, "5 seeds: tests are t tests over seeds and examples together{alone}"),
        (6, "6 seeds: tests are t tests over seeds and examples together."),
    ],
)
def test_a_plan_says_what_so_many_seeds_can_show(seeds: int, told: str) -> None:
    runs = expand_study(load_study({"grid": {"method": ["sequential", "joint"], "seed": list(range(seeds))}}))
    screen = io.StringIO()
    print_plan(runs, runs, Console(file=screen, width=120))
    alone = "; an exact test over seeds alone needs 6."
    assert screen.getvalue().splitlines()[-2] == told.format(alone=alone)
