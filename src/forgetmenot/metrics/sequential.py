"""Verdicts while examples are still being asked: valid whenever one looks, and whenever one stops.

A test of a fixed number of examples is wrong too often if one looks again and again and stops when it likes
the answer. A bet is not. Wealth starts at 1 and is staked, example by example, against a hypothesis; where
the hypothesis is true, nobody's wealth can be expected to grow, and it ever reaches 1/α with a probability of
at most α (Ville 1939). So wealth of 1/α refuses the hypothesis at any time: an e-process (Waudby-Smith and
Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS B 86, 1-27). With d the
difference after − before of one example and ε the margin, two bets run beside each other:

    e_kept = ∏ (1 + λ·w·(d + ε))   against "the mean of d is −ε or less": refusing it shows `kept`;
    e_lost = ∏ (1 − λ·w·d)         against "the mean of d is 0 or more": refusing it shows `forgotten`.

w is 1 or, for a cluster, its share of the largest one's examples. Each decision has all of α = 5 % for its
one direction, where the verdicts of a full set of examples have 2.5 % in each: `gained` is not looked for
here. Yet wealth of 20 is more to ask than an interval of 95 %: z = √(2·log 20) = 2.45 or more, not 1.96.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.metric import Floats, mean
from forgetmenot.metrics.task_metrics import metric_named
from forgetmenot.metrics.verdicts import ASSUMED_DISCORDANCE, LEVEL, Decision

_ASSUMED_UNITS = 10  # ours: how many examples the assumed discordance weighs as many as
_STAKE = 0.5  # the largest share of the wealth that one example can cost: the paper's c
_MOST_LOG_WEALTH = 500.0  # so that sums of wealth are finite too


class SequentialTest:
    """The two bets on one task, which take its examples batch by batch in an order fixed beforehand.

    The examples, or clusters of them, are taken for independent draws from all that could have been asked, as
    everywhere in the verdicts. The mean is over examples, clusters of unequal size included: a cluster counts
    as often as it has examples.

    Attributes:
        margin: ε.
        n: How many examples it has taken.
    """

    def __init__(self, margin: float, largest: int = 1) -> None:
        """Begin with a wealth of 1.

        Args:
            margin: ε, above 0 and below 1.
            largest: How many examples the largest cluster has, of all that may be asked.
        """
        if not 0 < margin < 1 or largest < 1:
            raise ValueError(f"A margin of {margin} or a largest cluster of {largest} is no bet.")
        self.margin, self.n, self._largest = margin, 0, largest
        self._kept, self._lost = Bet(margin, 1 - margin), Bet(margin, 1.0)

    def update(self, differences: ArrayLike, clusters: ArrayLike | None = None) -> None:
        """Take the next examples.

        Args:
            differences: After − before of each, [n], within −1 and 1: of right and wrong answers −1, 0 or 1.
            clusters: Of each, [n], any integers; whole clusters, each in one call. None where each example is
                its own.
        """
        d = np.asarray(differences, dtype=np.float64)
        if d.ndim != 1 or not (np.abs(d) <= 1).all():
            raise ValueError("Differences are a list of numbers within -1 and 1.")
        unit = np.arange(len(d)) if clusters is None else _by_appearance(np.asarray(clusters))
        if len(unit) != len(d):
            raise ValueError(f"{len(unit)} clusters do not fit {len(d)} differences.")
        size = np.bincount(unit).astype(np.float64)
        if size.max(initial=0) > self._largest:
            raise ValueError(f"A cluster of {size.max():.0f} is larger than the largest, {self._largest}.")
        total = np.bincount(unit, weights=d, minlength=len(size))
        weights = size / self._largest
        self._kept.take((total + self.margin * size) / self._largest, weights)
        self._lost.take(-total / self._largest, weights)
        self.n += len(d)

    @property
    def e_kept(self) -> float:
        """The wealth of the bet against a drop of the margin or more."""
        return _wealth(self._kept)

    @property
    def e_lost(self) -> float:
        """The wealth of the bet against no drop."""
        return _wealth(self._lost)


def _wealth(bet: "Bet") -> float:
    return float(np.exp(min(bet.log_wealth.item(), _MOST_LOG_WEALTH)))


class Bet:
    """One bet against "the mean of x is 0 or less".

    The stake is Kelly's to second order, λ = mean of x / mean of x², both over what came before: the paper's
    aGRAPA. In place of the mean of x, which is hardly known where few answers change, stands what the margin
    is about, ε·w; or half the mean so far where that is larger, so that a collapse takes few examples to see.
    Whatever the stakes, it is a fair bet.

    Attributes:
        log_wealth: Of each bet, [..., 1].
    """

    def __init__(self, margin: float, most: float) -> None:
        """Begin with a wealth of 1, for x of −most or more."""
        self._margin, self._most_staked = margin, _STAKE / most
        self.log_wealth: Floats = np.zeros(1)
        self._sum: Floats = np.zeros(1)
        self._weights: Floats = np.full(1, float(_ASSUMED_UNITS))
        self._squares: Floats = np.full(1, _ASSUMED_UNITS * ASSUMED_DISCORDANCE)

    def take(self, x: Floats, weights: Floats) -> Floats:
        """Bet on the next x [..., n] of these weights [n], and return the log-wealth after each [..., n]."""
        before = self._sum, self._weights, self._squares
        sums, totals, squares = (_running(*one) for one in zip(before, (x, weights, x**2), strict=True))
        hoped = np.maximum(self._margin * totals, sums / 2)[..., :-1]
        stakes = np.minimum(hoped / squares[..., :-1], self._most_staked)
        path = _running(self.log_wealth, np.log1p(stakes * x))
        self._sum, self._weights, self._squares, self.log_wealth = (
            one[..., -1:] for one in (sums, totals, squares, path)
        )
        return path[..., 1:]


def _running(before: Floats, values: Floats) -> Floats:
    """What came before [..., 1], and after it the running sums of the values [..., n]."""
    before = np.broadcast_to(before, (*values.shape[:-1], 1))
    return np.cumsum(np.concatenate([before, values], axis=-1), axis=-1)


def decide(
    tests: Mapping[str, SequentialTest],
    decided: Mapping[str, Decision] | None = None,
    alpha: float = 1 - LEVEL,
) -> dict[str, Decision]:
    """Decide each task by what has been seen so far: `kept`, `forgotten`, or `cannot tell` yet.

    However often this is asked: a task that dropped by its margin or more is ever called kept with a
    probability of at most α, and of all tasks that did not drop any is ever called forgotten with at most α.
    Each "kept" needs no correction, as in `verdicts`. "Forgotten" is corrected by e-Holm.

    Args:
        tests: Task to its test, each as far as it is. A task that is decided needs no more examples.
        decided: What the previous call returned; a decision is final.
        alpha: Of each of the two errors.
    """
    if not tests:
        return {}
    lost = dict(zip(tests, e_holm(np.array([test.e_lost for test in tests.values()])), strict=True))
    found: dict[str, Decision] = {}
    for task, test in tests.items():
        now: Decision = "kept" if test.e_kept >= 1 / alpha else "cannot tell"
        if now == "cannot tell" and lost[task] >= 1 / alpha:
            now = "forgotten"
        before = (decided or {}).get(task, "cannot tell")
        found[task] = now if before == "cannot tell" else before
    return found


def e_holm(wealth: Floats) -> Floats:
    """Return e-values [..., tasks] corrected for their number (Vovk and Wang 2021, Annals of Statistics 49).

    Closed testing: a hypothesis is refused if each set of hypotheses that holds it is, by the mean of the
    set's e-values. The set with the least mean is that with the smallest others, so the corrected e is the
    least of (e + the i smallest) / (i + 1) over i. As the mean of e-processes at one time is an e-process
    too, the true hypotheses together are ever refused with a probability of at most α: a decision stands
    although the wealth of other tasks falls later (Hartog and Lei 2025, arXiv 2501.09015). That would not
    hold for each task's highest wealth so far (Tavyrikov et al. 2025, arXiv 2501.19360).
    """
    smallest = np.cumsum(np.sort(wealth, axis=-1), axis=-1)
    sums = np.concatenate([np.zeros_like(smallest[..., :1]), smallest[..., :-1]], axis=-1)
    # Among the i smallest may be e itself: it only counts twice where the mean is no less than without it.
    means = (wealth[..., :, None] + sums[..., None, :]) / np.arange(1, wealth.shape[-1] + 1)
    return np.asarray(means.min(axis=-1))


def example_differences(answers: Answers) -> Floats | None:
    """Return after − before of each example, [n], for two stages' answers.

    None where the score is no mean over examples from 0 to 1. F1 or Matthews' correlation is one number of
    all examples together, and a loss has no bounds: no bet of this kind is fair on these. None also where an
    example has no score of its own, as ROUGE-L of a text without a letter that it knows.
    """
    metric = metric_named(answers.metric)
    if metric.aggregate is not mean or not metric.bounded:
        return None
    before, after = answers.terms()[:, 0]
    return np.asarray(after - before) if np.isfinite(after - before).all() else None


def seeded_batches(
    n: int, size: int = 16, *, clusters: NDArray[np.int64] | None = None, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of n examples in a random order fixed by the seed, so many at a time.

    Args:
        n: Examples.
        size: Of a batch, at least; only the last has fewer. With clusters it ends with a whole one.
        clusters: The number of each example's cluster, [n].
        seed: Of the order.
    """
    generator = np.random.default_rng(seed)
    unit = np.arange(n) if clusters is None else clusters
    place = generator.permutation(int(unit.max(initial=-1)) + 1)[unit]
    order = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        if end - start >= size or end == n:
            yield order[start:end]
            start = end


def _by_appearance(clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number clusters from 0 on in the order in which they appear."""
    _, first, number = np.unique(clusters, return_index=True, return_inverse=True)
    rank: NDArray[np.int64] = np.argsort(np.argsort(first))[number]
    return rank
