"""The table of where a run forgot."""

from forgetmenot.record.results import RunResults
from scripts.where import table
from tests.record.test_results import a_verdict, results
from tests.report.test_story import headline_reading, layers, reading


def test_each_trained_task_has_a_row_with_its_numbers() -> None:
    shown = reading(
        a_verdict("gained", 0.6, 0.88), a_verdict("kept", 0.9, 0.88), demonstrations={"a": {"count": 4}}
    )
    probes = {"layers": layers({"01-a": [2], "02-b": [3], "03-c": [3, 5]})}
    found = RunResults(results(readings=[headline_reading(), shown], probes=probes))
    head, rule, row = (line.replace("\N{NO-BREAK SPACE}", " ") for line in table(found))
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row == (
        "| a | −30.0 points (−35.0 to −25.0) | layer 2 | layers 3, 5 | layer 6: 0.250 (0.200 to 0.300) | "
        "4 demonstrations: +28.0 points (+23.0 to +33.0) |"
    )
