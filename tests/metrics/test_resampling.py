"""Wilson's interval, expanded percentiles and clusters, against independent computations."""

import numpy as np
import pytest
from scipy import stats

from forgetmenot.metrics import METRICS, Answers, MatrixRow, bootstrap, paired_difference
from forgetmenot.metrics.resampling import percentiles, resample, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 20), (17, 20), (20, 20), (263, 400), (4999, 5000)])
def test_wilsons_interval_is_scipys(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_all_right_is_no_certainty() -> None:
    """The bootstrap of 50 right answers has no width; 50 of 50 leave room down to .929."""
    gold = np.ones(50, dtype=int)
    cell = bootstrap([MatrixRow("00-base")], {"a": Answers("accuracy", gold, [gold])}).matrix[0][0]
    assert cell == pytest.approx((0.9286, 1.0), abs=1e-4)


def test_an_expanded_interval_is_as_wide_as_a_t_interval() -> None:
    """For normal resamples of standard deviation s√((n−1)/n)/√n it is mean ± t·s/√n."""
    n, z = 20, np.random.default_rng(0).normal(size=400_000)
    low, high = percentiles(z, 0.95, n) or (0.0, 0.0)
    reach = stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    assert (low, high) == pytest.approx((-reach, reach), rel=0.01)
    assert percentiles(z, 0.95) == pytest.approx((-1.96, 1.96), rel=0.01)


def test_whole_clusters_are_drawn() -> None:
    """Five copies of each of 40 answers are 40 independent ones: the spread is √5 times as large."""
    draw = np.random.default_rng(1)
    right = np.repeat(draw.random(40) < 0.6, 5).astype(float)
    clusters = np.repeat(np.arange(40), 5)
    terms = right[None, None, :]
    apart = resample(METRICS["accuracy"], terms, 4000, np.random.default_rng(0)).std()
    together = resample(METRICS["accuracy"], terms, 4000, np.random.default_rng(0), clusters).std()
    assert together / apart == pytest.approx(np.sqrt(5), rel=0.05)
    p = right.mean()
    assert together == pytest.approx(np.sqrt(p * (1 - p) / 40), rel=0.05)


def test_clusters_of_one_are_no_clusters() -> None:
    draw = np.random.default_rng(2)
    terms = draw.random((3, 1, 30))
    plain = resample(METRICS["rouge_l"], terms, 50, np.random.default_rng(0))
    single = resample(METRICS["rouge_l"], terms, 50, np.random.default_rng(0), np.arange(30))
    assert np.allclose(plain, single, rtol=0, atol=1e-12)


def test_copies_of_an_example_make_no_test_surer() -> None:
    """Three of 30 examples are lost; each stands there eight times."""
    gold = np.ones(30, dtype=int)
    after = gold.copy()
    after[:3] = 0
    once = paired_difference("accuracy", gold, gold, after)
    copied = [np.repeat(one, 8) for one in (gold, gold, after)]
    naive = paired_difference("accuracy", *copied)
    clustered = paired_difference("accuracy", *copied, clusters=np.repeat(np.arange(30), 8))
    assert naive.p is not None
    assert clustered.p is not None
    assert once.p is not None
    assert naive.p < 1e-6
    assert clustered.p > 0.01
    assert clustered.test == "clustered bootstrap"
    assert clustered.interval == pytest.approx(once.interval, abs=0.02)
