"""Paired tests: McNemar against SciPy and a textbook, Holm by hand, error rates."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, skew

from forgetmenot.metrics import holm, mcnemar, paired_difference, tango
from forgetmenot.metrics.significance import _for_skewness, beyond_chance


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(forgotten: int, gained: int) -> None:
    p = mcnemar(forgotten, gained)
    if forgotten + gained == 0:
        assert p == 1.0
    else:
        assert p == pytest.approx(binomtest(forgotten, forgotten + gained).pvalue)
    assert p == mcnemar(gained, forgotten)


def test_mcnemar_by_hand() -> None:
    # 1 against 9 of 10: 2 · (1 + 10) / 2^10.
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)


def test_mcnemar_on_a_published_table() -> None:
    # Agresti, Categorical Data Analysis, table 10.1: approval at two surveys, 150 and 86 discordant;
    # z² = 17.36 there, so that p is of the order of 3e-5.
    assert 1e-5 < mcnemar(150, 86) < 1e-4


def test_accuracy_lost_is_counted_by_example() -> None:
    gold = np.ones(20, dtype=int)
    before, after = np.ones(20, dtype=int), np.ones(20, dtype=int)
    before[:1] = 0  # gained
    after[1:10] = 0  # forgotten: 9
    result = paired_difference("accuracy", gold, before, after)
    assert result.difference == pytest.approx(8 / 20)
    assert (result.forgotten, result.gained, result.n) == (9, 1, 20)
    assert result.p == pytest.approx(22 / 1024)
    assert result.test == "exact McNemar"
    assert result.interval is not None
    low, high = tango(gained=1, lost=9, n=20)  # of after − before
    assert result.interval == pytest.approx((-high, -low))
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(written) >= {"difference", "interval", "p", "p_holm", "test", "forgotten", "gained", "n"}


def test_exact_match_is_tested_alike() -> None:
    result = paired_difference("exact_match", ["x"] * 10, ["x"] * 10, ["x"] * 4 + ["y"] * 6)
    assert (result.forgotten, result.gained) == (6, 0)
    assert result.p == pytest.approx(2 / 2**6)


def scored(
    metric: str, generator: np.random.Generator, n: int, noise: tuple[float, float]
) -> tuple[Any, Any, Any]:
    """Return gold and two answers, each off from gold by its own noise."""
    first, second = noise
    if metric == "loss":
        tokens = generator.integers(1, 9, n)
        before, after = (np.stack([-tokens * (s + generator.random(n)), tokens], axis=1) for s in noise)
        return None, before, after
    if metric == "spearman":
        numbers = generator.normal(size=n)
        return (
            numbers,
            numbers + first * generator.normal(size=n),
            numbers + second * generator.normal(size=n),
        )
    gold = generator.integers(0, 2, n)
    before, after = (np.where(generator.random(n) < s, 1 - gold, gold) for s in noise)
    return gold, before, after


@pytest.mark.parametrize("metric", ["f1", "matthews", "spearman", "loss"])
def test_other_metrics_are_bootstrapped_in_pairs(metric: str) -> None:
    gold, before, after = scored(metric, np.random.default_rng(0), 300, (0.1, 0.4))
    result = paired_difference(metric, gold, before, after, resamples=500)
    assert result.test == "paired bootstrap"
    assert result.difference is not None
    assert result.difference > 0
    assert result.p == pytest.approx(1 / 501)  # no resample comes near
    assert result.interval is not None
    assert result.interval[0] > 0
    assert (result.forgotten is None) == (metric in ("spearman", "loss"))

    turned = paired_difference(metric, gold, after, before, resamples=500)
    assert turned.difference == -result.difference
    same = paired_difference(metric, gold, before, before, resamples=500)
    assert (same.difference, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "spearman"])
def test_where_nothing_changed_few_tests_are_significant(metric: str) -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        gold, before, after = scored(metric, generator, 120, (0.25, 0.25))
        p = paired_difference(metric, gold, before, after, resamples=200, seed=trial).p
        assert p is not None
        hits += p < 0.05
    assert hits <= 0.09 * 200  # 5 % and 2.6 standard errors; McNemar's exact test stays below 5 %


def test_an_undefined_difference_says_so() -> None:
    result = paired_difference("spearman", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], resamples=50)
    assert result.difference is None
    assert result.interval is None
    assert result.p is None
    assert result.reason is not None
    assert "constant" in result.reason


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1, never falling: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_beyond_chance_by_the_papers_fixtures() -> None:
    """Harmon et al. 2026: two independent fair coins forget nothing; four options, .8 → .7."""
    coins = beyond_chance(forgotten=25, gained=25, right_before=50, n=100, options=2)
    assert (coins.forgotten, coins.gained, coins.most) == (0.0, 0.0, 0.0)
    found = beyond_chance(forgotten=200, gained=100, right_before=800, n=1000, options=4)
    assert found.forgotten == pytest.approx(0.2 - 0.02)
    assert found.gained == pytest.approx(0.1 - 0.02)
    assert found.most == pytest.approx(0.7333, abs=1e-4)


def test_guesses_alone_forget_nothing_beyond_chance_in_the_mean() -> None:
    generator = np.random.default_rng(0)
    k, n = 4, 4000
    gold, before, after = (generator.integers(0, k, n) for _ in range(3))
    known = generator.random(n) < 0.4  # known before and after; the rest is guessed both times
    before, after = np.where(known, gold, before), np.where(known, gold, after)
    found = paired_difference("accuracy", gold, before, after, options=k, resamples=20)
    assert found.beyond_chance is not None
    assert found.forgotten is not None
    assert found.forgotten / n > 0.1
    # Guesses are independent only among what is guessed, so that the assumption leaves a little.
    assert found.beyond_chance.forgotten < 0.5 * found.forgotten / n
    assert found.beyond_chance.most == pytest.approx(0.4, abs=0.03)
    graded = paired_difference("spearman", gold, before, after, options=k, resamples=20)
    assert graded.beyond_chance is None


def test_an_interval_is_wider_where_its_draws_are_skewed() -> None:
    """Of draws whose skewness is 2 both ends move by 2·(z² + 2)/6 deviations, of symmetric ones by none."""
    generator = np.random.default_rng(0)
    draws = 5 + 3 * generator.exponential(size=200_000)
    low, high = _for_skewness((4.0, 9.0), draws, 0.95)
    reach = float(skew(draws)) * (norm.ppf(0.975) ** 2 + 2) / 6 * draws.std()
    assert (low, high) == pytest.approx((4 - reach, 9 + reach))
    assert reach == pytest.approx(2 * 0.9736 * 3, rel=0.05)
    assert _for_skewness((4.0, 9.0), -draws, 0.95) == pytest.approx((low, high))
    even = np.r_[draws, -draws]
    assert _for_skewness((4.0, 9.0), even, 0.95) == pytest.approx((4, 9))
    assert _for_skewness((1.0, 1.0), np.ones(9), 0.95) == (1, 1)


def test_a_percentile_interval_is_off_by_so_much() -> None:
    """Both ends of the studentized bootstrap of a skewed mean lie beyond the percentiles by the reach."""
    generator = np.random.default_rng(0)
    values = generator.exponential(size=400)
    drawn = (values[generator.integers(400, size=(5000, 400))] for _ in range(20))
    means, deviations = np.concatenate([[one.mean(axis=1), one.std(axis=1)] for one in drawn], axis=1)
    plain = np.quantile(means, [0.025, 0.975])
    t = np.quantile((means - values.mean()) / deviations, [0.975, 0.025])
    missing = float(np.mean(values.mean() - t * values.std() - plain))
    widened = _for_skewness((float(plain[0]), float(plain[1])), means, 0.95)
    assert widened[1] - plain[1] == pytest.approx(missing, rel=0.3)
    assert missing > 0.003
