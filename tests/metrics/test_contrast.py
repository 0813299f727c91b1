"""Two models over the same examples: against the paired t test, under the null, and where nothing varies."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from forgetmenot.metrics import (
    Answers,
    MatrixRow,
    ScoreMatrix,
    average_performance,
    backward_transfer,
    contrast,
    replicates,
)

STAGES = (MatrixRow("00-base"), MatrixRow("01-a", ("a",)), MatrixRow("02-b", ("b",)))


def _answers(right: np.ndarray, gold: np.ndarray) -> Answers:
    """The answers of a run that is right where `right` [stages, n] says."""
    return Answers("accuracy", gold, [np.where(row, gold, 1 - gold) for row in right])


def _stack(rights: dict[str, np.ndarray], gold: np.ndarray, resamples: int = 1000) -> ScoreMatrix:
    return replicates(
        STAGES, {task: _answers(right, gold) for task, right in rights.items()}, resamples=resamples
    )


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_one_run_each_is_the_paired_t_test(shift: float) -> None:
    draw = np.random.default_rng(3)
    n = 600
    gold = draw.integers(0, 2, n)
    hard = draw.random(n)
    one = {"a": np.tile(hard < 0.7, (3, 1)), "b": draw.random((3, n)) < 0.6}
    other = {"a": np.tile((hard < 0.7 - shift) ^ (draw.random(n) < 0.2), (3, 1)), "b": one["b"]}
    mine, theirs = (float(right["a"][2].mean()) for right in (one, other))
    stacks = [_stack(right, gold).only(["a"]).values[:, 2, 0] for right in (one, other)]
    judged = contrast(mine, theirs, stacks[0] - stacks[1])
    by_t = ttest_rel(one["a"][2].astype(float), other["a"][2].astype(float))
    assert judged.p is not None
    z = abs(judged.difference) / np.std(stacks[0] - stacks[1], ddof=1)
    assert z == pytest.approx(abs(by_t.statistic), rel=0.08)  # 1,000 draws know a deviation to 2 per cent
    interval = by_t.confidence_interval(0.95)
    assert judged.interval == pytest.approx((interval.low, interval.high), abs=0.006)


def test_where_two_models_are_equally_good_few_are_called_different() -> None:
    draw = np.random.default_rng(5)
    found = []
    for _ in range(300):
        gold, hard = draw.integers(0, 2, 120), draw.random((2, 120))
        sides = [
            {task: hard[k] + 0.3 * draw.random((3, 120)) < 0.8 for k, task in enumerate("ab")} for _ in "xy"
        ]
        stacks = [_stack(side, gold, resamples=200) for side in sides]
        mine, theirs = (float(np.mean([side[task][2].mean() for task in "ab"])) for side in sides)
        resampled = [average_performance(stack) for stack in stacks]
        found.append(contrast(mine, theirs, resampled[0] - resampled[1]).p or 0.0)
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
    assert 0.4 < np.median(found) < 0.6


def test_a_difference_of_many_runs_is_that_of_their_means() -> None:
    draw = np.random.default_rng(6)
    gold = draw.integers(0, 2, 80)
    runs = [{task: draw.random((3, 80)) < 0.7 for task in "ab"} for _ in range(4)]
    drops = [backward_transfer(_stack(run, gold)) for run in runs]
    own = [run["a"][2].mean() - run["a"][1].mean() for run in runs]  # b is learned last
    together = contrast(
        float(np.mean(own[:2])),
        float(np.mean(own[2:])),
        np.mean(drops[:2], axis=0) - np.mean(drops[2:], axis=0),
    )
    assert together.difference == pytest.approx(np.mean(own[:2]) - np.mean(own[2:]))
    assert together.interval[0] < together.difference < together.interval[1]


def test_where_no_draw_differs_there_is_no_p_unless_nothing_differs_at_all() -> None:
    assert contrast(0.5, 0.5, np.zeros(10)).p == 1.0
    assert contrast(1.0, 0.0, np.ones(10)).p is None
    with pytest.raises(ValueError, match="undefined in a resample"):
        contrast(0.5, 0.4, np.array([0.1, np.nan]))


def test_p_can_be_as_small_as_a_correction_for_hundreds_of_tests_asks() -> None:
    draws = 0.1 + 0.01 * np.random.default_rng(0).standard_normal(1000)
    assert 0 < (contrast(0.6, 0.5, draws).p or 0) < 1e-15
