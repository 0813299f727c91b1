"""Tango's paired score interval: against its paper's example, McNemar's test, and exact enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from scipy.stats import multinomial

from forgetmenot.metrics import tango, tango_bounds
from forgetmenot.metrics.tango import score_statistic

Z = float(ndtri(0.975))


def test_a_published_interval() -> None:
    # 21 pairs, 1 gained and 7 lost.
    assert tango(1, 7, 21) == pytest.approx((-0.5172, -0.0260), abs=5e-5)
    assert tango(7, 1, 21) == pytest.approx((0.0260, 0.5172), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 500))
def test_where_no_answer_turns_it_is_the_closed_form(n: int) -> None:
    reach = Z**2 / (n + Z**2)
    assert tango(0, 0, n) == pytest.approx((-reach, reach), abs=1e-9)


def counts(most: int = 60) -> st.SearchStrategy[tuple[int, int, int]]:
    """Gained, lost and n."""
    return st.tuples(st.integers(0, most), st.integers(0, most), st.integers(0, most)).map(
        lambda drawn: (drawn[0], drawn[1], max(1, sum(drawn)))
    )


def statistic(drawn: tuple[int, int, int], difference: float) -> float:
    """z of one difference."""
    gained, lost, n = (np.array(float(one)) for one in drawn)
    return float(score_statistic(gained, lost, n, np.array(difference)))


@settings(deadline=None)
@given(counts())
def test_at_no_difference_it_is_mcnemars_statistic(drawn: tuple[int, int, int]) -> None:
    gained, lost, _ = drawn
    z = statistic(drawn, 0.0)
    assert z == pytest.approx((gained - lost) / np.sqrt(gained + lost) if gained + lost else 0.0)


@settings(deadline=None)
@given(counts(), st.floats(-0.95, 0.95))
def test_the_statistic_is_at_the_maximum_of_the_likelihood(
    drawn: tuple[int, int, int], difference: float
) -> None:
    """The restricted maximum by a numerical search over the multinomial's likelihood."""
    gained, lost, n = drawn

    def minus_log(lose: float) -> float:
        shares = np.array([lose + difference, lose, 1 - 2 * lose - difference])
        seen = np.array([gained, lost, n - gained - lost])
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(seen > 0, seen * np.log(np.maximum(shares, 1e-300)), 0.0)
        return -float(terms.sum())

    low, high = max(0.0, -difference), (1 - difference) / 2
    lose = minimize_scalar(minus_log, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    lose = min((low, high, lose), key=minus_log)
    variance = n * (2 * lose + difference - difference**2)
    z = statistic(drawn, difference)
    if variance > 1e-6:
        assert z == pytest.approx((gained - lost - n * difference) / np.sqrt(variance), rel=1e-3, abs=1e-3)


@settings(deadline=None)
@given(counts())
def test_the_ends_are_where_the_statistic_is_z(drawn: tuple[int, int, int]) -> None:
    gained, lost, n = drawn
    low, high = tango(*drawn)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    for end, z in ((low, Z), (high, -Z)):
        if abs(end) < 1 - 1e-9:
            assert statistic(drawn, end) == pytest.approx(z, abs=1e-6)
    turned = tango(lost, gained, n)
    assert (low, high) == pytest.approx((-turned[1], -turned[0]), abs=1e-12)


@pytest.mark.parametrize(("n", "lose", "difference"), [(20, 0.1, 0.0), (20, 0.2, -0.1), (12, 0.15, 0.1)])
def test_coverage_by_exact_enumeration(n: int, lose: float, difference: float) -> None:
    """Every outcome of n pairs with its probability: the interval of a few pairs covers as it says."""
    gain = lose + difference
    outcomes = [(g, b) for g, b in itertools.product(range(n + 1), repeat=2) if g + b <= n]
    gained, lost = (np.array(one, dtype=float) for one in zip(*outcomes, strict=True))
    probability = multinomial.pmf(
        np.stack([gained, lost, n - gained - lost], axis=1), n, [gain, lose, 1 - gain - lose]
    )
    low, high = tango_bounds(gained, lost, np.full_like(gained, n))
    covered = float(probability[(low <= difference) & (difference <= high)].sum())
    assert probability.sum() == pytest.approx(1)
    assert 0.93 <= covered <= 0.98
