"""What a run cost, in words that follow from results.json and timing.json."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.report.costs import costs
from forgetmenot.report.html import write_report
from forgetmenot.report.terminal import print_matrix
from forgetmenot.report.wording import byte_size

COST: dict[str, Any] = {
    "positions": {
        "00-base": {"scoring": {"computed": 40, "without_sharing": 100}},
        "01-a": {
            "training": {"computed": 1500, "without_sharing": 2000},
            "scoring": {"computed": 40, "without_sharing": 100},
        },
        "02-b": {
            "training": {"computed": 1500, "without_sharing": 2000},
            "scoring": {"computed": 40, "without_sharing": 100},
        },
    },
    "memory_kept": {"01-a": 1_000_000, "02-b": 2_500_000},
    "parameters_added": {"01-a": 1000, "02-b": 2000},
    "parameters": 100_000,
    "past_data": True,
}


def test_each_cost_is_said_once_with_its_share() -> None:
    assert costs(COST, {"train_s": [0.0, 61.0, 61.0], "eval_s": [5.0, 5.0, None]}) == {
        "memory kept": "2.5 MB beside the weights, 1.25 MB for each stage",
        "parameters added": "2,000 (2.00% of the model's)",
        "past data": "needed",
        "positions in training": "3,000, 75% of those without sharing",
        "positions in scoring": "120, 40% of those without sharing",
        "time": "2 min 02 s of training, 10 s of scoring",
    }


def test_what_was_rehearsed_is_said_and_where_nothing_was() -> None:
    assert costs({"rehearsed": {"02-b": 20, "03-c": 30}}) == {
        "rehearsed": "50 examples of earlier tasks in all"
    }
    assert costs({"rehearsed": {"02-b": 0, "03-c": 30}}) == {
        "rehearsed": "30 examples of earlier tasks in all, none in 02-b"
    }
    assert costs({"rehearsed": {"02-b": 0, "03-c": 0}}) == {"rehearsed": "no example in any stage"}


def test_what_is_not_known_is_not_said() -> None:
    assert costs({}) == {}
    nothing = {"memory_kept": {"01-a": 0}, "parameters_added": {"01-a": 0}, "past_data": False}
    assert costs(nothing) == {
        "memory kept": "nothing beside the weights",
        "parameters added": "none",
        "past data": "not needed",
    }


def test_rehearsed_tokens_are_said_with_their_share_in_each_quarter() -> None:
    tokens = {
        "01-a": {"new": 700, "rehearsed": 0, "phases": [[175, 0]] * 4},
        "02-b": {"new": 900, "rehearsed": 100, "phases": [[150, 50], [250, 50], [250, 0], [250, 0]]},
        "03-c": {"new": 600, "rehearsed": 100, "phases": [[50, 50], [250, 50], [300, 0], [0, 0]]},
    }
    assert costs({"answer_tokens": tokens}) == {
        "answer tokens": "2,200 new, 200 rehearsed (of the stages that rehearse 11.8%; by quarter of the "
        "steps 33.3%, 16.7%, 0.0%, 0.0%)"
    }
    assert costs({"answer_tokens": {"01-a": tokens["01-a"]}}) == {"answer tokens": "700 new"}
    short = {"new": 6, "rehearsed": 2, "phases": [[6, 0], [0, 0], [0, 2], [0, 0]]}
    assert costs({"answer_tokens": {"02-b": short}})["answer tokens"].endswith("0.0%, –, 100.0%, –)")


def test_a_size_is_said_in_the_unit_that_fits() -> None:
    assert [byte_size(n) for n in (12, 999, 1000, 2_500_000, 7e9, 1234e9)] == [
        "12 B",
        "999 B",
        "1 kB",
        "2.5 MB",
        "7 GB",
        "1.23e+03 GB",
    ]


def test_the_terminal_and_the_page_say_it(make_run: Callable[..., Path]) -> None:
    import json

    path = make_run()
    results = json.loads((path / "results.json").read_text()) | {"cost": COST}
    (path / "results.json").write_text(json.dumps(results))
    screen = io.StringIO()
    print_matrix(results, Console(file=screen, width=400))
    assert (
        "Cost: memory kept 2.5 MB beside the weights, 1.25 MB for each stage; parameters" in screen.getvalue()
    )
    page = write_report(path).read_text(encoding="utf-8")
    assert "Costs" in page
    assert "<dd>2,000 (2.00% of the model&#39;s)</dd>" in page
