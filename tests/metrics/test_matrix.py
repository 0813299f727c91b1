"""Continual metrics: a matrix worked by hand, Avalanche's definitions, published tables, identities."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forgetmenot.metrics import (
    FIGURES,
    FORMULAS,
    MatrixRow,
    ScoreMatrix,
    Summary,
    UndefinedError,
    backward_transfer,
    forgetting,
    forward_transfer,
    haque_forgetting,
    haque_learning,
    intransigence,
    learning_accuracy,
    summarize,
)

NAN = math.nan


def in_sequence(values: object, tasks: str = "abcdefgh") -> ScoreMatrix:
    """Return the matrix of one task per stage, named by letters."""
    scores = np.asarray(values, dtype=np.float64)
    names = tuple(tasks[: scores.shape[-1]])
    stages = (MatrixRow("00-base"), *(MatrixRow(f"{i:02}-{t}", (t,)) for i, t in enumerate(names, start=1)))
    return ScoreMatrix(names, stages, scores)


def summary_of(matrix: ScoreMatrix, metric: str = "accuracy") -> Summary:
    return summarize(matrix, dict.fromkeys(matrix.tasks, metric))


#                        a    b    c
HAND = in_sequence([
    [0.5, 0.4, 0.3],  # base
    [0.9, 0.5, 0.2],  # after a
    [0.7, 0.8, 0.4],  # after b
    [0.6, 0.9, 0.7],  # after c
])  # fmt: skip


def test_the_matrix_worked_by_hand() -> None:
    summary = summary_of(HAND)
    assert summary.figures == pytest.approx({
        "average_performance": 2.2 / 3,  # .6 .9 .7
        "backward_transfer": (-0.3 + 0.1) / 2,  # .6 − .9, .9 − .8
        "forward_transfer": (0.1 + 0.1) / 2,  # .5 − .4, .4 − .3
        "forgetting": (0.3 - 0.1) / 2,  # max(.9 .7) − .6, max(.5 .8) − .9
        "learning_accuracy": 2.4 / 3,  # .9 .8 .7
        "haque_forgetting_sum": 0.3,  # .3 0 0
        "haque_forgetting_mean": 0.1,
        "haque_learning_sum": 0.4 + 0.5 + 0.4,
        "haque_learning_mean": 1.3 / 3,
        "haque_pretrained_mean": 1.2 / 3,
        "haque_final_mean": 2.2 / 3,
        "haque_stage_mean": (1.6 + 1.9 + 2.2) / 9,
        "haque_diagonal_mean": 2.4 / 3,
    })  # fmt: skip
    assert summary.forgetting == pytest.approx({"a": 0.3, "b": 0.0, "c": 0.0})
    assert summary.learning == pytest.approx({"a": 0.4, "b": 0.5, "c": 0.4})
    assert summary.over == ("a", "b", "c")
    assert summary.reasons == {}
    assert backward_transfer(HAND, denominator="T") == pytest.approx(-0.2 / 3)
    assert intransigence(HAND, {"a": 1.0, "b": 0.9, "c": 0.5}) == pytest.approx((0.1 + 0.1 - 0.2) / 3)


def test_the_summary_as_json() -> None:
    written = json.loads(json.dumps(summary_of(HAND).to_json(), allow_nan=False))
    assert set(written) == {
        *("average_performance", "backward_transfer", "forward_transfer", "forgetting", "learning_accuracy"),
        *("haque", "over", "reasons"),
    }
    assert set(written["haque"]) == {
        *("forgetting", "learning", "forgetting_sum", "forgetting_mean", "learning_sum", "learning_mean"),
        *("pretrained_mean", "final_mean", "stage_mean", "diagonal_mean"),
    }
    assert written["haque"]["forgetting"]["a"] == pytest.approx(0.3)
    assert all(type(value) is float for value in summary_of(HAND).figures.values())


def test_every_figure_has_its_formula() -> None:
    assert set(FIGURES) | {"haque_forgetting", "haque_learning", "intransigence"} <= set(FORMULAS)
    assert all(all(formula) for formula in FORMULAS.values())


# Avalanche's definitions (ContinualAI/avalanche, evaluation/metrics: forgetting_bwt.py, forward_transfer.py),
# written as few-line oracles of what its documentation says, on a matrix without the base row.


def avalanche_stream_forgetting(after: np.ndarray) -> float:
    """Mean over experiences seen before the last of (score when learned − score now); its BWT is −this."""
    return float(np.mean([after[j, j] - after[-1, j] for j in range(len(after) - 1)]))


def avalanche_stream_forward_transfer(after: np.ndarray, at_initialisation: np.ndarray) -> float:
    """Mean over experiences but the first of (score after the one before it − score at initialisation)."""
    return float(np.mean([after[j - 1, j] - at_initialisation[j] for j in range(1, len(after))]))


square = st.integers(2, 6).flatmap(lambda t: arrays(np.float64, (t + 1, t), elements=st.floats(0, 1)))


@given(square)
def test_avalanche_calls_minus_bwt_forgetting(values: np.ndarray) -> None:
    matrix = in_sequence(values)
    assert float(backward_transfer(matrix)) == pytest.approx(-avalanche_stream_forgetting(values[1:]))
    expected = avalanche_stream_forward_transfer(values[1:], values[0])
    assert float(forward_transfer(matrix)) == pytest.approx(expected)


@given(square)
def test_chaudhry_forgetting_is_at_least_minus_bwt(values: np.ndarray) -> None:
    # The maximum includes R[j][j], so F ≥ −BWT with equality where no row beats the diagonal.
    matrix = in_sequence(values)
    t = values.shape[1]
    drops = [max(values[1:t, j]) - values[t, j] for j in range(t - 1)]
    assert float(forgetting(matrix)) == pytest.approx(sum(drops) / (t - 1))
    assert float(forgetting(matrix)) >= -float(backward_transfer(matrix)) - 1e-12


@given(square)
def test_haque_identity(values: np.ndarray) -> None:
    figures = summary_of(in_sequence(values)).figures
    assert None not in figures.values()
    numbers = {name: float(value) for name, value in figures.items() if value is not None}
    kept = numbers["haque_learning_sum"] - numbers["haque_forgetting_sum"]
    final = numbers["haque_pretrained_mean"] + kept / values.shape[1]
    assert numbers["haque_final_mean"] == pytest.approx(final)


@given(square)
def test_haque_figures_are_never_negative(values: np.ndarray) -> None:
    matrix = in_sequence(values)
    for task in matrix.tasks:
        assert haque_forgetting(matrix, task) >= 0
        assert haque_learning(matrix, task) >= 0


@given(arrays(np.float64, (7, 5, 4), elements=st.floats(-1, 1)))
def test_a_stack_of_matrices_gives_each_matrix_its_own_figures(stack: np.ndarray) -> None:
    for name, figure in FIGURES.items():
        one_by_one = [float(figure(in_sequence(values))) for values in stack]
        assert figure(in_sequence(stack)).tolist() == pytest.approx(one_by_one), name


def test_one_task_has_nothing_to_forget() -> None:
    summary = summary_of(in_sequence([[0.5], [0.9]]))
    for name in ("backward_transfer", "forward_transfer", "forgetting"):
        assert summary.figures[name] is None
        assert summary.reasons[name]
    assert "only task" in summary.reasons["forgetting"]
    assert summary.figures["average_performance"] == summary.figures["learning_accuracy"] == 0.9
    assert summary.learning == pytest.approx({"a": 0.4})


def test_joint_learns_all_tasks_in_one_stage() -> None:
    stages = (MatrixRow("00-base"), MatrixRow("01-joint", ("a", "b")))
    summary = summary_of(ScoreMatrix(("a", "b"), stages, np.array([[0.5, 0.4], [0.9, 0.7]])))
    assert summary.figures["average_performance"] == pytest.approx(0.8)
    assert summary.figures["backward_transfer"] is None
    assert "All tasks were learned in the last stage" in summary.reasons["backward_transfer"]
    assert summary.figures["haque_learning_mean"] == pytest.approx(0.35)


def test_stages_that_each_start_from_the_base_have_learning_accuracy_alone() -> None:
    stages = (
        MatrixRow("00-base"),
        *(MatrixRow(f"0{i}-{t}", (t,), follows=False) for i, t in enumerate("abc", 1)),
    )
    summary = summary_of(ScoreMatrix(HAND.tasks, stages, HAND.values))
    assert summary.figures.pop("learning_accuracy") == pytest.approx(0.8)
    assert set(summary.figures.values()) == {None}
    assert set(summary.forgetting.values()) == {None}
    for name in summary.figures:
        assert "starts from the base model" in summary.reasons[name]


def test_columns_never_trained_and_stages_without_column_are_passed_over() -> None:
    stages = (
        MatrixRow("00-base"),
        MatrixRow("01-x", ("x",)),
        MatrixRow("02-a", ("a",)),
        MatrixRow("03-b", ("b",)),
    )
    values = np.array([[0.1, 0.5, 0.4], [0.2, 0.6, 0.4], [0.3, 0.9, 0.3], [0.4, 0.7, 0.8]])
    summary = summary_of(ScoreMatrix(("only-scored", "a", "b"), stages, values))
    assert summary.over == ("a", "b")
    assert summary.figures["backward_transfer"] == pytest.approx(-0.2)
    # The stage on x came before both, so both can have profited: .6 − .5 and .3 − .4.
    assert summary.figures["forward_transfer"] == pytest.approx(0.0)
    assert summary.figures["average_performance"] == pytest.approx(0.75)


def test_the_last_task_can_be_forgotten_by_a_stage_without_column() -> None:
    stages = (MatrixRow("00-base"), MatrixRow("01-a", ("a",)), MatrixRow("02-x", ("x",)))
    summary = summary_of(ScoreMatrix(("a",), stages, np.array([[0.5], [0.9], [0.7]])))
    assert summary.figures["backward_transfer"] == pytest.approx(-0.2)
    assert summary.figures["forgetting"] == pytest.approx(0.2)


def test_a_task_trained_twice_counts_from_the_first_time() -> None:
    stages = (
        MatrixRow("00-base"),
        MatrixRow("01-a", ("a",)),
        MatrixRow("02-b", ("b",)),
        MatrixRow("03-a", ("a",)),
    )
    matrix = ScoreMatrix(("b", "a"), stages, np.array([[0.5, 0.5], [0.5, 0.9], [0.8, 0.6], [0.7, 1.0]]))
    assert matrix.trained == ("a", "b")
    assert backward_transfer(matrix) == pytest.approx((0.1 - 0.1) / 2)


def test_a_missing_cell_is_named_by_the_figures_that_need_it() -> None:
    values = HAND.values.copy()
    values[1, 1] = NAN  # b after stage 1: needed by FWT, F, Haque and the mean over stages
    summary = summary_of(ScoreMatrix(HAND.tasks, HAND.stages, values))
    missing = {name for name, value in summary.figures.items() if value is None}
    assert missing == {
        *("forward_transfer", "forgetting", "haque_stage_mean"),
        *("haque_forgetting_sum", "haque_forgetting_mean", "haque_learning_sum", "haque_learning_mean"),
    }
    for name in missing:
        assert summary.reasons[name] == "The score on b after stage 01-a is missing."
    assert summary.figures["backward_transfer"] == pytest.approx(-0.1)
    assert summary.forgetting == pytest.approx({"a": 0.3, "b": None, "c": 0.0})
    json.dumps(summary.to_json(), allow_nan=False)


def test_losses_are_not_averaged_with_accuracies() -> None:
    summary = summarize(HAND, {"a": "accuracy", "b": "loss", "c": "matthews"})
    assert summary.over == ("a", "c")
    assert "b" in summary.reasons["over"]
    assert summary.figures["average_performance"] == pytest.approx(0.65)
    # a was learned before the last stage, c in it
    assert summary.figures["backward_transfer"] == pytest.approx(-0.3)

    alone = summary_of(HAND, "loss")
    assert alone.over == ("a", "b", "c")
    assert alone.figures["average_performance"] == pytest.approx(2.2 / 3)


def test_before_any_training_there_is_nothing_to_say() -> None:
    summary = summary_of(ScoreMatrix(("a",), (MatrixRow("00-base"),), np.array([[0.5]])))
    assert set(summary.figures.values()) == {None}
    assert summary.over == ()


def test_intransigence_needs_the_reference_of_every_task() -> None:
    with pytest.raises(UndefinedError, match="no score on c"):
        intransigence(HAND, {"a": 1.0, "b": 1.0})


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    base = MatrixRow("00-base")
    with pytest.raises(ValueError, match="1 stages × 2 tasks"):
        ScoreMatrix(("a", "b"), (base,), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="twice"):
        ScoreMatrix(("a", "a"), (base,), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="base model"):
        ScoreMatrix(("a",), (MatrixRow("01-a", ("a",)),), np.zeros((1, 1)))


def test_learning_accuracy_needs_the_diagonal_only() -> None:
    values = np.full((4, 3), NAN)
    values[[1, 2, 3], [0, 1, 2]] = 0.9, 0.8, 0.7
    assert learning_accuracy(in_sequence(values)) == pytest.approx(0.8)
