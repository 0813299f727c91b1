import json
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.report.wording import number, p_value, signed, span


def a_verdict(decision: str, before: float = 0.5, after: float = 0.5, **given: Any) -> dict[str, Any]:
    """An entry of `verdicts`; its interval reaches five points to either side unless given."""
    difference = after - before
    return {
        "decision": decision,
        "before": before,
        "after": after,
        "difference": difference,
        "interval": [difference - 0.05, difference + 0.05],
        "margin": 0.03,
        "lower_within_margin": False,
        "n": 400,
        "units": 400,
        "needed": None,
        "reason": None,
        **given,
    }


def results(method: str = "sequential", **changes: Any) -> dict[str, Any]:
    """Three tasks, one after the other: `a` is forgotten, `b` is kept, `c` comes last."""
    stages = [
        {"name": "00-base", "trains_on": [], "follows": True},
        {"name": "01-a", "trains_on": ["a"], "follows": True},
        {"name": "02-b", "trains_on": ["b"], "follows": True},
        {"name": "03-c", "trains_on": ["c"], "follows": True},
    ]
    return {
        "version": 1,
        "model": "tiny",
        "tasks": ["a", "b", "c"],
        "stages": stages,
        "matrix": [[0.5, 0.5, 0.4], [0.9, 0.5, 0.4], [0.8, 0.85, 0.4], [0.6, 0.84, 0.7]],
        "metrics": {"a": "accuracy", "b": "accuracy", "c": "accuracy"},
        "majority": {"a": 0.5, "b": 0.5, "c": 0.4},
        "summary": {},
        "verdicts": {
            "base_end": {
                "a": a_verdict("gained", 0.5, 0.6),
                "b": a_verdict("gained", 0.5, 0.84),
                "c": a_verdict("gained", 0.4, 0.7),
            },
            "own_end": {"a": a_verdict("forgotten", 0.9, 0.6), "b": a_verdict("kept", 0.85, 0.84)},
            "base_own": {
                "a": a_verdict("gained", 0.5, 0.9),
                "b": a_verdict("gained", 0.5, 0.85),
                "c": a_verdict("gained", 0.4, 0.7),
            },
        },
        **changes,
    }


def test_numbers_have_three_decimals_and_a_true_minus() -> None:
    assert number(0.5) == "0.500"
    assert number(-0.1234) == "−0.123"
    assert number(None) == "–"
    assert signed(0.02) == "+0.020"
    assert signed(-0.02) == "−0.020"
    assert span((0.1, 0.25)) == "0.100 to 0.250"
    assert p_value(0.00004) == "p < 0.001"
    assert p_value(0.0312) == "p = 0.031"


def test_an_outcome_follows_the_task_from_base_to_end() -> None:
    outcome = RunResults(results()).outcome("a")
    assert (outcome.base, outcome.learned, outcome.end) == (0.5, 0.9, 0.6)
    assert outcome.own_end
    assert outcome.base_end
    assert outcome.own_end["difference"] == pytest.approx(-0.3)
    assert outcome.base_end["decision"] == "gained"
    assert outcome.state == "forgotten"
    assert outcome.lost == pytest.approx(10), "margins of three points"


def test_the_worst_verdict_on_the_end_is_the_state() -> None:
    assert [one.state for one in RunResults(results()).outcomes] == ["forgotten", "kept", "gained"]
    for base_end, own_end, state in (
        ("forgotten", "gained", "forgotten"),
        ("kept", "cannot tell", "cannot tell"),
        ("cannot tell", "kept", "cannot tell"),
        ("gained", "kept", "kept"),
        ("gained", "gained", "gained"),
    ):
        changed = results()
        changed["verdicts"]["base_end"]["b"] = a_verdict(base_end)
        changed["verdicts"]["own_end"]["b"] = a_verdict(own_end)
        assert RunResults(changed).outcome("b").state == state


def test_the_worst_loss_comes_first_in_the_margins_of_its_metric() -> None:
    changed = results()
    changed["verdicts"]["own_end"]["b"] = a_verdict("forgotten", 0.85, 0.84, difference=-1.0, margin=0.05)
    assert [one.task for one in RunResults(changed).worst_first] == ["b", "a", "c"]


def test_a_drop_without_a_verdict_is_not_judged() -> None:
    """A file from before verdicts, with its significance tests, calls nothing kept or forgotten."""
    old = results(significance={"a": {"p_holm": 0.001}, "b": {"p_holm": 0.7}})
    del old["verdicts"]
    assert {one.state for one in RunResults(old).outcomes} == {"not judged"}


def test_stages_from_the_base_are_not_compared_with_one_another() -> None:
    stages = [{**stage, "follows": False} for stage in results()["stages"]]
    judged = {"base_own": results()["verdicts"]["base_own"]}
    findings = RunResults(results(stages=stages, verdicts=judged))
    assert not findings.in_sequence
    assert {outcome.state for outcome in findings.outcomes} == {"gained"}
    assert {outcome.end for outcome in findings.outcomes} == {None}
    assert findings.since_learned("a", 3) is None


def test_a_run_that_is_still_going() -> None:
    """Verdicts of an earlier, shorter list of tasks do not count."""
    findings = RunResults(results(matrix=results()["matrix"][:2]))
    assert not findings.complete
    assert findings.column("a") == [0.5, 0.9, None, None]
    assert [outcome.state for outcome in findings.outcomes] == ["not judged", "ahead", "ahead"]
    assert findings.missing == []


@pytest.mark.parametrize("model", ["tiny", "owner/tiny", "../models/tiny/"])
def test_a_model_is_called_by_its_own_name(model: str) -> None:
    assert RunResults(results(model=model)).name == "tiny"


def test_a_column_that_was_never_trained_is_judged_against_the_base() -> None:
    stages = [
        {**stage, "trains_on": [t for t in stage["trains_on"] if t != "b"]} for stage in results()["stages"]
    ]
    watched = {"base_end": {"b": a_verdict("forgotten", 0.5, 0.3)}}
    outcome = RunResults(results(stages=stages, verdicts=watched)).outcome("b")
    assert not outcome.trained
    assert outcome.state == "forgotten"


def test_the_colour_runs_from_the_majority_class_to_one() -> None:
    findings = RunResults(results())
    assert findings.level("a", 0.5) == 0.0
    assert findings.level("a", 0.75) == pytest.approx(0.5)
    assert findings.level("a", 1.0) == 1.0
    assert findings.level("a", 0.2) == 0.0
    assert findings.level("a", None) is None
    assert not findings.above_chance("a", 0.5)
    assert findings.above_chance("a", 0.501)


def test_the_colour_of_a_loss_runs_over_its_column() -> None:
    findings = RunResults(
        results(
            matrix=[[-4.0, 0, 0], [-2.0, 0, 0], [-3.0, 0, 0], [-3.5, 0, 0]],
            metrics={"a": "loss", "b": "accuracy", "c": "accuracy"},
            majority={},
        )
    )
    assert not findings.bounded("a")
    assert findings.level("a", -4.0) == 0.0
    assert findings.level("a", -3.0) == pytest.approx(0.5)
    assert findings.level("a", -2.0) == 1.0


def test_missing_cells_carry_their_reasons() -> None:
    matrix = [[0.5, 0.5, 0.4], [None, 0.5, 0.4], [0.8, 0.85, None], [0.6, 0.84, 0.7]]
    gaps = [{"stage": "01-a", "task": "a", "reason": "Out of memory."}]
    findings = RunResults(
        results(matrix=matrix, readings=[{"metric": "accuracy", "matrix": matrix, "missing": gaps}])
    )
    assert findings.missing == [("01-a", "a", "Out of memory."), ("02-b", "c", "No reason was recorded.")]
    assert findings.further_readings == []


def test_a_folder_without_results_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no results\.json"):
        load_results(tmp_path)


def test_a_broken_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"version": 1, "tas')
    with pytest.raises(UserError, match=r"results\.json is damaged: it is not JSON"):
        load_results(tmp_path)


def test_another_version_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results(version=2)))
    with pytest.raises(UserError, match="version 2 and this program reads version 1"):
        load_results(tmp_path)
