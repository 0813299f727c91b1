"""The spread over seeds, against the standard library and SciPy."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from forgetmenot.metrics import spread


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_mean_deviation_and_interval_are_those_of_others(values: list[float]) -> None:
    found = spread(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.std == pytest.approx(statistics.stdev(values), abs=1e-12)
    if statistics.stdev(values) > 1e-6:
        assert found.interval == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval(0.95)))


def test_one_seed_says_nothing_about_others() -> None:
    found = spread([0.75]).to_json()
    assert found == {"mean": 0.75, "std": None, "interval": None, "n": 1}


def test_three_seeds_by_hand() -> None:
    """1, 2, 3: mean 2, std 1, t(2) = 4.3027 over √3."""
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.std) == (2.0, 1.0)
    assert found.interval == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
