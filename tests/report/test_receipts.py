"""The tables on receipts, from a hand-written receipts.json."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from forgetmenot.report.receipt_tables import print_receipts, receipts_markdown

HOW = ("small model", "alone", "with receipt", "without confidence")


@pytest.fixture
def found() -> dict[str, Any]:
    """One task at two stages."""

    def row(stage: str, alone: float) -> dict[str, Any]:
        values = dict(zip(HOW, (0.8, alone, 0.7, None), strict=True))
        return {
            "stage": stage,
            "task": "sst2",
            "scores": {
                "accuracy": {h: {"value": v, "interval": v and [v - 0.1, v + 0.1]} for h, v in values.items()}
            },
            "tests": [
                {"of": HOW[2], "against": HOW[1], "difference": -0.1, "interval": [-0.2, 0.0]}
                | {"p": 0.01, "p_holm": 0.04, "test": "exact McNemar"}
            ],
            "overrides": {HOW[2]: {"overridden": 5, "n": 20, "rate": 0.25, "precision": 0.4}},
            "bins": [{"from": 0.5, "to": 0.6, "n": 20, "accuracy": dict.fromkeys(HOW, 0.5)}],
        }

    about = {
        "model": "tfidf",
        "source": "sst2",
        "parameters": 12345,
        "seconds": 3.2,
        "accuracy": {"train": 0.81},
        "temperature": 1.234,
        "calibrated_on": 10,
        "calibration_error": 0.05,
        "tokens": {"alone": 10.0, "with receipt": 31.25},
        "n": 20,
        "majority": 0.55,
        "metric": "accuracy",
    }
    lost = {"learned": 0.9, "at_the_end": 0.6, "with_receipt": 0.7, "small_model": 0.8}
    return {
        "model": "base",
        "tasks": {"sst2": about},
        "rows": [row("00-base", 0.5), row("02-cola", 0.6)],
        "recovery": [{"task": "sst2", **lost, "lost": 0.3, "recovered": None}],
    }


def test_every_figure_has_its_place(found: dict[str, Any]) -> None:
    lines = receipts_markdown(found).splitlines()
    for line in (
        "# Receipts for base",
        "| sst2 | tfidf | sst2 | 12,345 | 3 | 0.810 | 1.23 | 0.050 | 10.0 | 31.2 |",
        "| 00-base | sst2 | accuracy | 20 | 0.550 | 0.800 (0.700 to 0.900) | 0.500 (0.400 to 0.600) "
        "| 0.700 (0.600 to 0.800) | – (–) |",
        "| 02-cola | sst2 | with receipt | alone | −0.100 (−0.200 to 0.000) | p = 0.040 | exact McNemar |",
        "| 00-base | sst2 | with receipt | 5 | 20 | 0.250 | 0.400 |",
        "| 00-base | sst2 | 0.5 to 0.6 | 20 | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| sst2 | 0.900 | 0.600 | 0.700 | 0.800 | 0.300 | – |",
    ):
        assert line in lines
    assert not any(line.startswith("## Interpreter") for line in lines)


def test_an_interpreter_has_a_table_of_its_own(found: dict[str, Any]) -> None:
    found["rows"][1]["interpreter"] = {
        "n": 20,
        "could_not_parse": 4,
        "accuracy": 0.6,
        "overrides": {"rate": 0.1, "precision": None},
        "influence": 0.35,
        "influence_stated": 15,
        "features_stated": 12,
        "features_in_the_input": 11,
    }
    text = receipts_markdown(found)
    assert "| 02-cola | sst2 | 20 | 4 | 0.600 | 0.100 | – | 0.350 | 15 | 12 | 11 |" in text.splitlines()


def test_the_terminal_shows_what_matters_most(found: dict[str, Any]) -> None:
    screen = Console(file=StringIO(), width=200)
    print_receipts(found, screen)
    assert isinstance(screen.file, StringIO)
    said = screen.file.getvalue()
    assert "0.700 (0.600 to 0.800)" in said
    assert "What the receipt gives back" in said
    assert "12,345" not in said
