"""The table of a study, from a study.json written by hand."""

import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from forgetmenot.report.comparison.study_tables import (
    FIGURES,
    print_study,
    study_cells,
    study_markdown,
    study_table,
)
from forgetmenot.report.wording import duration, setting

ORDER = ["sst2", "mrpc"]


def _run(
    run: str, method: Any, seed: int, figures: list[float | None] | None, failed: str | None = None
) -> dict[str, Any]:
    return {
        "run": run,
        "varies": {"method": method, "order": ORDER, "seed": seed},
        "status": 70 if failed else 0,
        "failed": failed,
        "figures": figures and dict(zip(FIGURES, figures, strict=True)),
        "reasons": {},
        "not_learned": [],
    }


def _cell(method: Any, runs: list[str], failed: int, means: list[Any], **more: Any) -> dict[str, Any]:
    figures = [mean and {"mean": mean[0], "std": mean[1], "interval": None, "n": len(runs)} for mean in means]
    return {
        "varies": {"method": method, "order": ORDER},
        "runs": runs,
        "failed": failed,
        "figures": dict(zip(FIGURES, figures, strict=True)),
        "not_learned": [],
        **more,
    }


EWC = {"name": "ewc", "strength": 2.0}
STUDY = {
    "version": 1,
    "name": "mine",
    "grid": {"method": [EWC, "joint"], "order": [ORDER], "seed": [0, 1]},
    "runs": [
        _run("a-0", EWC, 0, [0.5, -0.25, 0.25, 0.75]),
        _run("a-1", EWC, 1, [0.75, -0.5, 0.5, 0.5]),
        _run("b-0", "joint", 0, [0.875, None, None, 0.875]),
        _run("b-1", "joint", 1, None, "The disk | is full."),
    ],
    "cells": [
        _cell(EWC, ["a-0", "a-1"], 0, [(0.625, 0.1767), (-0.375, 0.1767), (0.375, 0.1767), (0.625, 0.1767)]),
        _cell("joint", ["b-0"], 1, [(0.875, None), None, None, (0.875, None)], not_learned=["mrpc", "rte"]),
    ],
}


def test_every_run_is_a_row() -> None:
    table = study_table(STUDY)
    assert list(table["method"]) == ["ewc (strength 2.0)"] * 2 + ["joint"] * 2
    assert list(table["order"]) == ["sst2,mrpc"] * 4
    assert list(table["seed"]) == [0, 1, 0, 1]
    assert list(table["average_performance"][:3]) == [0.5, 0.75, 0.875]
    assert pd.isna(table["backward_transfer"][2])
    assert table.loc[3, list(FIGURES)].isna().all()
    assert list(table["failed"].fillna("")) == ["", "", "", "The disk | is full."]


def test_every_cell_is_a_row_of_means_and_deviations() -> None:
    cells = study_cells(STUDY)
    assert "seed" not in cells
    assert (list(cells["seeds"]), list(cells["failed"])) == ([2, 1], [0, 1])
    assert list(cells["learning_accuracy"]) == [0.625, 0.875]
    assert cells["learning_accuracy_std"][0] == 0.1767
    assert pd.isna(cells["learning_accuracy_std"][1])
    assert pd.isna(cells["forgetting"][1])


def test_the_terminal_shows_what_varies_the_means_and_what_failed() -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    print_study(STUDY, console)
    said = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert said[1:3] == [
        "ewc (strength 2.0) 2 0.625 ± 0.177 −0.375 ± 0.177 0.375 ± 0.177 0.625 ± 0.177",
        "joint 1, 1 failed 0.875 – – 0.875",
    ]
    assert said[0].split()[:2] == ["method", "seeds"]  # one order alone: it does not vary
    assert said[-1] == "b-1 failed: The disk | is full."


@pytest.mark.parametrize("width", [30, 50, 70, 90])
def test_a_narrow_terminal_folds_and_loses_no_letter(width: int) -> None:
    def letters(width: int) -> list[str]:
        console = Console(width=width, file=io.StringIO(), record=True)
        print_study(STUDY, console)
        return sorted("".join(console.export_text().split()))

    assert letters(width) == letters(160)


def test_the_markdown_has_the_cells_the_runs_and_the_failures() -> None:
    text = study_markdown(STUDY)
    lines = text.splitlines()
    assert lines[0] == "# mine"
    figures = "average performance | backward transfer | forgetting (Chaudhry) | learning accuracy"
    assert f"| method | seeds | {figures} | not learned |" in lines
    assert "| joint | 1, 1 failed | 0.875 | – | – | 0.875 | mrpc, rte |" in lines
    assert "| ewc (strength 2.0) | 1 | 0.750 | −0.500 | 0.500 | 0.500 | a-1 |" in lines
    assert lines[-1] == "- b-1 failed: The disk | is full."
    alone = study_markdown({**STUDY, "runs": [STUDY["runs"][0]], "cells": [STUDY["cells"][0]]})  # type: ignore[index]
    assert "## Runs" not in alone
    assert "| ewc (strength 2.0) | sst2,mrpc | 2 |" in alone  # nothing varies: all keys are shown


def test_settings_and_times_as_people_say_them() -> None:
    assert [
        setting(one) for one in ("a", 1, 0.1, True, None, ["a", 2], {"x": 1, "y": None}, {"name": "b"})
    ] == [
        "a",
        "1",
        "0.1",
        "true",
        "null",
        "a,2",
        "x 1, y null",
        "b",
    ]
    assert [duration(seconds) for seconds in (0.4, 59.6, 185, 7800)] == [
        "0 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]
