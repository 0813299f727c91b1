"""The outcome of a task under each reading."""

from typing import Any

from forgetmenot.record.results import RunResults
from forgetmenot.report.by_reading import AskedBy, Move, asked_otherwise

OWN: dict[str, Any] = {
    "metric": "accuracy",
    "prompt": {"a": "default", "b": "default"},
    "n": {"a": 50, "b": 40},
}
OWN |= {"scoring": "likelihood", "matrix": [[0.5, 0.5], [0.9, 0.5], [0.6, 0.8]], "missing": []}
WRITTEN = {**OWN, "scoring": "generation", "prompt": {"a": "terse"}, "n": {"a": 50}}
WRITTEN |= {"matrix": [[0.1, None], [0.8, None], [0.8, None]], "unparsed": [[30, None], [2, None], [4, None]]}
F1 = {**OWN, "metric": "f1", "n": {"b": 40}}


def findings(*readings: dict[str, Any]) -> RunResults:
    stages = [("00-base", []), ("01-a", ["a"]), ("02-b", ["b"])]
    return RunResults(
        {
            "tasks": ["a", "b"],
            "stages": [{"name": name, "trains_on": on} for name, on in stages],
            "matrix": OWN["matrix"],
            "metrics": {"a": "accuracy", "b": "accuracy"},
            "summary": {},
            "readings": list(readings),
        }
    )


def test_each_way_from_after_the_tasks_own_stage_to_the_end() -> None:
    own, written = asked_otherwise(findings(OWN, F1, WRITTEN))
    assert own == AskedBy(
        "default, by likelihood", (Move(0.9, 0.6, 0.6 - 0.9, None, 50), Move(0.8, 0.8, None, None, 40))
    )
    assert written == AskedBy("terse, by generation", (Move(0.8, 0.8, 0.0, 4, 50), None))


def test_a_run_that_asked_in_one_way_says_nothing() -> None:
    assert asked_otherwise(findings(OWN, F1)) == []
    assert asked_otherwise(findings({"metric": "accuracy", "matrix": OWN["matrix"]})) == []
