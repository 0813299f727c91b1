"""Ranked answers: hand counts, and what chance alone gives."""

import numpy as np
import pytest

from forgetmenot.metrics import holm, mcnemar, rank_variants

GOLD = np.array([1] * 20 + [0] * 20)
PERFECT = GOLD.copy()
SOME = np.where(np.arange(40) < 12, 1 - GOLD, GOLD)  # 12 wrong
FEW = np.where(np.arange(40) < 3, 1 - GOLD, GOLD)  # 3 wrong


def test_each_is_tested_against_the_best_by_mcnemar_and_holm() -> None:
    found = rank_variants("accuracy", GOLD, {"some": SOME, "perfect": PERFECT, "few": FEW})
    assert found.best == "perfect"
    assert list(found.ranked) == ["some", "perfect", "few"]
    assert [one.value for one in found.ranked.values()] == [28 / 40, 1.0, 37 / 40]
    assert found.ranked["perfect"].behind is None
    some, few = found.ranked["some"].behind, found.ranked["few"].behind
    assert some is not None
    assert few is not None
    raw = [mcnemar(12, 0), mcnemar(3, 0)]
    assert [some.p, few.p] == raw
    assert [some.p_holm, few.p_holm] == holm(raw)
    assert some.difference == pytest.approx(12 / 40)
    assert few.difference == pytest.approx(3 / 40)
    low, high = found.ranked["some"].interval or (1, 0)
    assert low < 28 / 40 < high
    assert found.range == pytest.approx(12 / 40)
    assert found.p is not None
    assert found.p < 0.01


def test_the_first_of_equals_is_best_and_nothing_is_behind() -> None:
    found = rank_variants("accuracy", GOLD, {"one": FEW, "other": FEW})
    assert found.best == "one"
    assert found.ranked["other"].behind is not None
    assert found.ranked["other"].behind.p_holm == 1.0
    assert (found.range, found.range_by_chance, found.p) == (0.0, 0.0, 1.0)


def test_the_range_of_chance_is_what_coin_flips_give() -> None:
    """Answers of three equal coins: the expected range of three binomial means, and uniform p values."""
    draw = np.random.default_rng(0)
    gold = np.ones(100, dtype=np.int64)
    found = []
    for _ in range(60):
        coins = {f"coin {k}": row for k, row in enumerate(draw.integers(2, size=(3, 100)))}
        found.append(rank_variants("accuracy", gold, coins, resamples=2, permutations=99))
    expected = np.ptp(draw.binomial(100, 0.5, size=(3, 20000)) / 100, axis=0).mean()
    assert np.mean([one.range_by_chance or 0.0 for one in found]) == pytest.approx(expected, abs=0.006)
    assert 0.3 < np.mean([one.p or 0.0 for one in found]) < 0.7
    assert np.mean([(one.p or 0.0) <= 0.1 for one in found]) < 0.25


def test_one_answer_has_no_range() -> None:
    found = rank_variants("accuracy", GOLD, {"one": FEW})
    assert (found.best, found.range, found.p) == ("one", None, None)


def test_what_has_no_score_is_not_ranked() -> None:
    numbers = np.arange(10.0)
    found = rank_variants("spearman", numbers, {"constant": np.ones(10), "right": numbers})
    assert found.best == "right"
    assert found.ranked["constant"].value is None
    assert found.ranked["constant"].behind is None
    assert found.range is None


def test_a_permutation_without_a_score_does_not_make_p_smaller() -> None:
    """Of the 8 permutations 4 have the observed range, 2 have none, and 2 make both answers constant."""
    found = rank_variants("spearman", [1.0, 2.0, 3.0], {"up": [1.0, 2.0, 2.0], "down": [2.0, 1.0, 1.0]})
    assert found.range == pytest.approx(2 * 3**0.5 / 2)
    assert found.range_by_chance is None
    assert found.p == pytest.approx(6 / 8, abs=0.06)  # four standard errors of 1,000 permutations
