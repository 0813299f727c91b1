import json
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.report.wording import number, p_value, signed, span, verdict


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
        "significance": {
            "a": {"p_holm": 0.001, "interval": [0.2, 0.4]},
            "b": {"p_holm": 0.7, "interval": [-0.02, 0.04]},
        },
        **changes,
    }


def plain(sentence: str) -> str:
    return sentence.replace("\N{NO-BREAK SPACE}", " ")


def test_numbers_have_three_decimals_and_a_true_minus() -> None:
    assert number(0.5) == "0.500"
    assert number(-0.1234) == "−0.123"
    assert number(None) == "–"
    assert signed(0.02) == "+0.020"
    assert signed(-0.02) == "−0.020"
    assert span((0.1, 0.25)) == "0.100 to 0.250"
    assert p_value(0.00004) == "p < 0.001"
    assert p_value(0.0312) == "p = 0.031"


def test_a_fate_follows_the_task_from_base_to_end() -> None:
    outcome = RunResults(results()).outcome("a")
    assert (outcome.base, outcome.learned, outcome.end) == (0.5, 0.9, 0.6)
    assert outcome.change == pytest.approx(-0.3)
    assert outcome.interval == (-0.4, -0.2)
    assert outcome.state == "forgotten"


def test_states_of_a_sequence() -> None:
    assert [outcome.state for outcome in RunResults(results()).outcomes] == ["forgotten", "kept", "last"]


def test_a_significant_rise_is_no_forgetting() -> None:
    changed = results(matrix=[[0.5, 0.5, 0.4], [0.7, 0.5, 0.4], [0.8, 0.85, 0.4], [0.9, 0.84, 0.7]])
    assert RunResults(changed).outcome("a").state == "improved"
    assert "a (0.700 → 0.900) improved significantly" in plain(verdict(RunResults(changed)))


def test_the_verdict_names_the_forgotten_the_kept_and_the_last() -> None:
    assert plain(verdict(RunResults(results()))) == (
        "Trained on a, b and c in turn, tiny had significantly forgotten a (0.900 → 0.600) by the end; "
        "b shows no significant loss; c, learned last, ends at 0.700."
    )


def test_the_verdict_says_what_was_not_learned() -> None:
    sentence = verdict(RunResults(results(not_learned=["b"])))
    assert "b was not learned, staying at or below chance" in sentence
    assert "b shows" not in sentence


def test_the_verdict_of_a_run_that_learned_nothing() -> None:
    sentence = verdict(RunResults(results(not_learned=["a", "b", "c"])))
    assert sentence == "Trained on a, b and c in turn, tiny did not rise above chance on any of them."


def test_the_verdict_where_only_the_last_task_was_learned() -> None:
    sentence = plain(verdict(RunResults(results(not_learned=["a", "b"]))))
    assert "in turn, tiny learned c (0.400 → 0.700); a and b were not learned" in sentence


def test_the_verdict_of_a_run_that_kept_everything() -> None:
    kept = {task: {"p_holm": 0.5, "interval": [-0.1, 0.1]} for task in "ab"}
    assert "had forgotten nothing by the end that a test can tell from noise" in verdict(
        RunResults(results(significance=kept))
    )


def test_the_verdict_claims_no_significance_without_a_test() -> None:
    sentence = verdict(RunResults(results(significance={})))
    assert "significantly" not in sentence
    assert "not tested for significance" in sentence


def test_the_verdict_counts_where_there_are_many() -> None:
    tasks = [f"t{i}" for i in range(8)]
    rows = [[0.5] * 8] + [[0.9 if j == i else 0.4 + j / 100 for j in range(8)] for i in range(8)]
    sentence = verdict(
        RunResults(
            results(
                tasks=tasks,
                stages=[{"name": "00-base", "trains_on": []}]
                + [{"name": f"{i + 1:02d}-t{i}", "trains_on": [task]} for i, task in enumerate(tasks)],
                matrix=rows,
                metrics=dict.fromkeys(tasks, "accuracy"),
                majority={},
                significance={task: {"p_holm": 0.0} for task in tasks[:-1]},
            )
        )
    )
    assert "8 tasks in turn" in sentence
    assert "significantly forgotten 7 tasks, worst t0 (0.900 → 0.400), by the end" in plain(sentence)


def test_stages_from_the_base_are_not_compared_with_one_another() -> None:
    stages = [{**stage, "follows": False} for stage in results()["stages"]]
    findings = RunResults(results(stages=stages))
    assert not findings.in_sequence
    assert {outcome.state for outcome in findings.outcomes} == {"apart"}
    assert findings.since_learned("a", 3) is None
    assert "from the base model, tiny learned a (0.500 → 0.900)" in plain(verdict(findings))


def test_one_stage_over_all_tasks_is_joint() -> None:
    findings = RunResults(
        results(
            stages=[{"name": "00-base", "trains_on": []}, {"name": "01-joint", "trains_on": ["a", "b", "c"]}],
            matrix=[[0.5, 0.5, 0.4], [0.9, 0.8, 0.7]],
        )
    )
    assert {outcome.state for outcome in findings.outcomes} == {"last"}
    assert verdict(findings).startswith("Trained on a, b and c at once, tiny learned a")


def test_what_training_did_not_raise_was_not_learned_by_it() -> None:
    """A base model can be above the majority class already, without having learned anything."""
    one_stage: dict[str, Any] = {
        "stages": [{"name": "00-base", "trains_on": []}, {"name": "01-joint", "trains_on": ["a", "b", "c"]}]
    }
    some = RunResults(results(**one_stage, matrix=[[0.6, 0.5, 0.6], [0.9, 0.8, 0.6]]))
    assert plain(verdict(some)) == (
        "Trained on a, b and c at once, tiny learned a (0.600 → 0.900) and b (0.500 → 0.800) "
        "and did not improve c (0.600 → 0.600)."
    )
    none = RunResults(results(**one_stage, matrix=[[0.6, 0.6, 0.6], [0.55, 0.6, 0.5]]))
    assert plain(verdict(none)).startswith(
        "Trained on a, b and c at once, tiny did not improve a (0.600 → 0.550)"
    )


def test_a_run_that_is_still_going() -> None:
    findings = RunResults(results(matrix=results()["matrix"][:2]))
    assert not findings.complete
    assert findings.column("a") == [0.5, 0.9, None, None]
    assert [outcome.state for outcome in findings.outcomes] == ["last", "ahead", "ahead"]
    assert verdict(findings).endswith("2 of 4 stages are done.")
    assert findings.missing == []


@pytest.mark.parametrize("model", ["tiny", "owner/tiny", "../models/tiny/"])
def test_a_model_is_called_by_its_own_name(model: str) -> None:
    assert RunResults(results(model=model)).name == "tiny"


def test_only_a_base_score() -> None:
    findings = RunResults(results(matrix=results()["matrix"][:1]))
    assert verdict(findings) == "tiny has been scored and not trained yet."


def test_a_column_that_was_never_trained_is_compared_with_the_base() -> None:
    stages = [
        {**stage, "trains_on": [t for t in stage["trains_on"] if t != "b"]} for stage in results()["stages"]
    ]
    outcome = RunResults(results(stages=stages)).outcome("b")
    assert outcome.state == "scored"
    assert outcome.change == pytest.approx(0.34)


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
    assert findings.outcome("a").state == "unknown"
    assert findings.further_readings == []


def test_a_folder_without_results_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no results\.json"):
        load_results(tmp_path)


def test_a_broken_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"version": 1, "tas')
    with pytest.raises(UserError, match="is not valid JSON"):
        load_results(tmp_path)


def test_another_version_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results(version=2)))
    with pytest.raises(UserError, match="version 2 and this program reads version 1"):
        load_results(tmp_path)
