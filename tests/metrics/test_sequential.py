"""Stopping early: the bets are fair, Ville's inequality holds, and fast is what the slow loop says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from forgetmenot.metrics import (
    Answers,
    SequentialTest,
    decide,
    e_holm,
    example_differences,
    measure,
    seeded_batches,
)
from forgetmenot.metrics.verdicts import Decision


def after(differences: list[float], margin: float = 0.03) -> SequentialTest:
    test = SequentialTest(margin)
    test.update(differences)
    return test


def slowly(differences: list[float], margin: float) -> tuple[float, float]:
    """The two bets by hand, one example at a time, from the module's formulas."""
    wealth = []
    for hypothesis, sign, most in ((-margin, 1, 1 - margin), (0.0, -1, 1.0)):
        now, total, weights, squares = 1.0, 0.0, 10.0, 10 * 0.1
        for d in differences:
            x = sign * (d - hypothesis)
            now *= 1 + min(max(margin * weights, total / 2) / squares, 0.5 / most) * x
            total, weights, squares = total + x, weights + 1, squares + x * x
        wealth.append(now)
    return wealth[0], wealth[1]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0, 0.4]), max_size=60),
    st.floats(0.005, 0.5),
    st.integers(1, 9),
)
def test_batches_are_the_slow_loop_one_by_one(differences: list[float], margin: float, size: int) -> None:
    whole, some = SequentialTest(margin), SequentialTest(margin)
    whole.update(differences)
    for start in range(0, len(differences), size):
        some.update(differences[start : start + size])
    for test in (whole, some):
        assert (test.e_kept, test.e_lost) == pytest.approx(slowly(differences, margin), rel=1e-9)
    assert whole.n == some.n == len(differences)


@pytest.mark.parametrize("lose", [0.05, 0.3])
@pytest.mark.parametrize("margin", [0.03, 0.2])
def test_no_bet_can_be_expected_to_win_where_its_hypothesis_is_true(lose: float, margin: float) -> None:
    """Every sequence of five examples with its probability: E[wealth] is 1 at the edge, less beyond."""

    def expected(drop: float) -> tuple[float, float]:
        gain = lose - drop
        chance = {-1.0: lose, 0.0: 1 - lose - gain, 1.0: gain}
        total = np.zeros(2)
        for sequence in itertools.product(chance, repeat=5):
            test = after(list(sequence), margin)
            total += np.prod([chance[d] for d in sequence]) * np.array([test.e_kept, test.e_lost])
        return float(total[0]), float(total[1])

    if margin <= lose:
        at_margin, at_none = expected(margin), expected(0.0)
        assert at_margin[0] == pytest.approx(1)
        assert at_none[1] == pytest.approx(1)
        assert expected(lose)[0] < 1
        assert at_none[0] > 1 > expected(-0.04)[1]
        assert at_margin[1] > 1
    else:  # so few answers are lost that the drop is less than the margin
        assert expected(0.0)[1] == pytest.approx(1)
        assert expected(lose)[0] > 1


def test_villes_inequality_for_graded_scores_in_clusters() -> None:
    """However often one looks, at most 5 % of runs reach 20; 400 runs have a standard error of 1 %."""
    generator = np.random.default_rng(0)
    ever = np.zeros(2)
    for _ in range(400):
        # The larger a cluster the worse its examples: their mean is 0, and that of the clusters is .11.
        size = generator.choice([1, 2, 4], size=250)
        change = np.clip(generator.normal(0, 0.2, size=250), -0.5, 0.5) + np.where(size == 4, -0.2, 0.8 / 3)
        clusters = np.repeat(np.arange(250), size)
        none, margin = SequentialTest(0.1, largest=4), SequentialTest(0.1, largest=4)
        reached = np.zeros(2, dtype=bool)
        for start in range(0, 250, 10):
            some = (clusters >= start) & (clusters < start + 10)
            none.update(change[clusters][some], clusters[some])
            margin.update(change[clusters][some] - 0.1, clusters[some])
            reached |= [none.e_lost >= 20, margin.e_kept >= 20]
        ever += reached
    assert (ever / 400 <= 0.08).all(), ever
    assert ever.sum() > 0


def test_a_cluster_is_one_unit() -> None:
    """Five equal answers of one cluster say what one answer says."""
    d = np.array([-1.0, 0, 0, 1, 0, 0, -1])
    clustered = SequentialTest(0.03, largest=5)
    clustered.update(np.repeat(d, 5), np.repeat([4, 0, 7, 1, 2, 3, 9], 5))
    assert (clustered.e_kept, clustered.e_lost) == pytest.approx(slowly(d.tolist(), 0.03))
    assert clustered.n == 35


@pytest.mark.parametrize(
    ("differences", "clusters", "said"),
    [
        ([0.5, -1.5], None, "within -1 and 1"),
        ([float("nan")], None, "within -1 and 1"),
        ([[0.0]], None, "within -1 and 1"),
        ([0.0, 0.0], [1, 1], "larger than the largest"),
        ([0.0, 0.0], [1], "do not fit"),
    ],
)
def test_what_is_no_bet(differences: list[float], clusters: list[int] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SequentialTest(0.03).update(differences, clusters)
    for margin in (0.0, 1.0):
        with pytest.raises(ValueError, match="margin"):
            SequentialTest(margin)


@settings(deadline=None)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=6))
def test_e_holm_is_closed_testing_by_the_mean(wealth: list[float]) -> None:
    tasks = range(len(wealth))
    subsets = [set(some) for r in tasks for some in itertools.combinations(tasks, r + 1)]
    closed = [min(np.mean([wealth[j] for j in some]) for some in subsets if i in some) for i in tasks]
    assert e_holm(np.array(wealth)).tolist() == pytest.approx(closed, rel=1e-9)
    several = e_holm(np.array([wealth, wealth[::-1]]))
    assert several.tolist() == [pytest.approx(closed), pytest.approx(e_holm(np.array(wealth[::-1])).tolist())]


def test_decisions() -> None:
    tests = {
        "same": after([0.0] * 400),
        "worse": after([-1.0, -1.0, 0.0] * 20),
        "unclear": after([0.0, -1.0, 1.0] * 20),
    }
    assert decide(tests) == {"same": "kept", "worse": "forgotten", "unclear": "cannot tell"}
    assert decide({}) == {}
    # Wealth of 20 is enough alone, and not enough among four.
    lost = next(one for one in (after([-1.0] * n) for n in range(1, 99)) if one.e_lost >= 20)
    assert decide({"a": lost}) == {"a": "forgotten"}
    among = {"a": lost, **{task: after([0.0, 1.0] * 20) for task in "bcd"}}
    assert decide(among)["a"] == "cannot tell"
    assert decide(among, alpha=0.3)["a"] == "forgotten"


def test_a_collapse_is_seen_at_once() -> None:
    """Of answers that were right nine are lost of ten: two looks are enough."""
    generator = np.random.default_rng(0)
    test = after(np.where(generator.random(32) < 0.9, -1.0, 0.0).tolist())
    assert decide({"a": test}) == {"a": "forgotten"}


def test_a_decision_is_final() -> None:
    test = after([-1.0] * 30)
    first = decide({"a": test})
    test.update([1.0] * 60)
    assert decide({"a": test}) == {"a": "cannot tell"}
    assert decide({"a": test}, first) == {"a": "forgotten"}
    undecided: dict[str, Decision] = {"a": "cannot tell"}
    assert decide({"a": after([0.0] * 400)}, undecided) == {"a": "kept"}


def test_wealth_stays_finite() -> None:
    assert np.isfinite(sum(after([-1.0] * 100_000).e_lost for _ in range(4)))


def test_differences_of_answers() -> None:
    gold = np.array([1, 1, 0, 0])
    before, now = np.array([1, 0, 0, 1]), np.array([0, 1, 0, 1])
    found = example_differences(Answers("accuracy", gold, [before, now]))
    assert found is not None
    assert found.tolist() == [-1, 1, 0, 0]
    assert example_differences(Answers("f1", gold, [before, now])) is None
    assert example_differences(Answers("loss", None, [np.ones((4, 2)), np.ones((4, 2))])) is None
    texts = ["a b c", "x"], ["a b", "y"], ["a b c", "x"]
    graded = example_differences(Answers("rouge_l", texts[0], [texts[1], texts[2]]))
    assert graded is not None
    scores = [measure("rouge_l", texts[0], one).value for one in texts[1:]]
    assert graded.mean() == pytest.approx(float(scores[1] or 0) - float(scores[0] or 0))


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=40), st.integers(1, 20), st.integers(0, 3))
def test_batches_hold_every_example_once_and_clusters_whole(sizes: list[int], size: int, seed: int) -> None:
    clusters: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    n = len(clusters)
    for given_clusters in (clusters, None):
        found = list(seeded_batches(n, size, clusters=given_clusters, seed=seed))
        assert sorted(i for batch in found for i in batch.tolist()) == list(range(n))
        assert all(size <= len(batch) < size + 5 for batch in found[:-1])
        again = seeded_batches(n, size, clusters=given_clusters, seed=seed)
        assert all((one == two).all() for one, two in zip(found, again, strict=True))
    batch_of = {i: k for k, batch in enumerate(seeded_batches(n, size, clusters=clusters)) for i in batch}
    assert all(len({batch_of[i] for i in np.flatnonzero(clusters == one)}) == 1 for one in range(len(sizes)))


def test_the_order_is_random() -> None:
    (batch,) = seeded_batches(200, 200, seed=1)
    assert (batch != np.arange(200)).sum() > 150
    (other,) = seeded_batches(200, 200, seed=2)
    assert (batch != other).any()


def test_an_example_without_a_score_of_its_own_leaves_the_task_to_be_asked_whole() -> None:
    answers = Answers("rouge_l", ["hello", "日本"], [["hello", "日本"], ["hello", "x"]])
    assert example_differences(answers) is None
    assert example_differences(Answers("rouge_l", ["hello"], [["hello"], ["x"]])) is not None
