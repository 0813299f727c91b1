"""Correlations over tasks, held against SciPy, and how often their intervals cover."""

import numpy as np
import pytest
from scipy import stats

from forgetmenot.metrics.correlation import (
    Coefficient,
    correlate,
    correlation_interval,
    pearson,
    reliability,
    spearman,
)

NAMES = [f"task-{k}" for k in range(12)]


def test_both_coefficients_are_scipys_with_ties_too() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        x, y = generator.normal(size=12), generator.integers(4, size=12).astype(float)
        y[0] = 9.0  # never constant
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_pearsons_interval_is_scipys() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=12)
    y = x + generator.normal(size=12)
    expected = stats.pearsonr(x, y).confidence_interval(0.9)
    assert correlate(NAMES, x.tolist(), y.tolist(), "pearson", 0.9).interval == pytest.approx(tuple(expected))


def test_twelve_tasks_at_85_have_54_to_96() -> None:
    assert correlation_interval(0.85, 12, "pearson") == pytest.approx((0.54, 0.96), abs=0.005)


def test_twelve_tasks_at_85_have_less_to_say_of_ranks() -> None:
    z, error = np.arctanh(0.85), np.sqrt((1 + 0.85**2 / 2) / 9)
    expected = np.tanh([z - 1.959964 * error, z + 1.959964 * error])
    found = correlation_interval(0.85, 12)
    assert found == pytest.approx(tuple(expected), abs=1e-6)
    assert found == pytest.approx((0.46, 0.97), abs=0.005)


def covered(rho: float, n: int, coefficient: Coefficient, draws: int = 4000) -> tuple[float, float]:
    """How often our interval of Spearman's r covers the true one, and how often Pearson's variance would."""
    generator = np.random.default_rng(7)
    true = 6 / np.pi * np.arcsin(rho / 2) if coefficient == "spearman" else rho
    x = generator.normal(size=(draws, n))
    y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=(draws, n))
    compute = spearman if coefficient == "spearman" else pearson
    ours = fishers = 0
    for one, other in zip(x, y, strict=True):
        r = compute(one, other)
        assert r is not None
        found, plain = correlation_interval(r, n, coefficient), correlation_interval(r, n, "pearson")
        ours += found is not None and found[0] <= true <= found[1]
        fishers += plain is not None and plain[0] <= true <= plain[1]
    return ours / draws, fishers / draws


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.85])
@pytest.mark.parametrize("n", [8, 12])
def test_the_interval_of_ranks_covers_where_fishers_would_not(rho: float, n: int) -> None:
    ours, fishers = covered(rho, n, "spearman")
    assert 0.935 <= ours <= 0.985
    assert fishers <= ours
    if rho == 0.85:
        assert fishers < 0.94


def test_the_interval_of_values_covers() -> None:
    ours, _ = covered(0.85, 12, "pearson")
    assert 0.94 <= ours <= 0.96


def test_full_agreement_of_few_ranks_is_no_certainty() -> None:
    found = correlate(NAMES[:5], [1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert found.value == 1
    assert found.interval is not None
    low, high = found.interval
    assert high == 1
    assert low == pytest.approx(correlation_interval(0.9, 5)[0])  # type: ignore[index]  # 1 2 3 5 4
    assert low < 0.1
    turned = correlate(NAMES[:5], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert turned.interval == pytest.approx((-1, -low))


def test_leaving_out_one_task_shows_what_a_correlation_hinges_on() -> None:
    x, y = [0.0, 1.0, 2.0, 3.0, 10.0], [3.0, 0.0, 2.0, 1.0, 10.0]
    found = correlate(NAMES[:5], x, y)
    by_hand = [stats.spearmanr(np.delete(x, k), np.delete(y, k)).statistic for k in range(5)]
    assert found.leave_one_out == pytest.approx((min(by_hand), max(by_hand)))
    assert found.value is not None
    assert found.hinges_on == NAMES[int(np.argmax(np.abs(np.array(by_hand) - found.value)))]


def test_what_has_no_correlation_says_why() -> None:
    constant = correlate(NAMES[:4], [0.5] * 4, [1, 2, 3, 4])
    assert (constant.value, constant.interval) == (None, None)
    assert "the same on every task" in constant.reason
    few = correlate(NAMES[:3], [1, 2, 3], [1, 3, 2])
    assert few.value == pytest.approx(0.5)
    assert few.interval is None
    assert "4 tasks or more" in few.reason
    assert correlate(NAMES[:1], [1], [1]).reason == "fewer than two tasks"


def test_noise_keeps_a_perfect_correlation_below_the_ceiling() -> None:
    generator = np.random.default_rng(3)
    tasks, tests = 4000, 100
    true = generator.uniform(0.3, 0.9, size=tasks)
    x, y = (generator.binomial(tests, true) / tests for _ in range(2))
    sure = [reliability(one.tolist(), np.sqrt(one * (1 - one) / tests).tolist()) for one in (x, y)]
    assert None not in sure
    ceiling = float(np.sqrt(np.prod(sure)))  # type: ignore[arg-type]
    assert pearson(x, y) == pytest.approx(ceiling, abs=0.01)
    assert ceiling < 0.95
    assert reliability([0.5, 0.5], [0.1, 0.1]) is None
    assert reliability([0.5, 0.51], [0.1, 0.1]) == 0
