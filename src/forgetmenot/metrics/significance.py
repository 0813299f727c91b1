"""Paired tests of whether a task was forgotten, one example at a time, never on a maximum."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.resampling import Interval, percentiles, resample
from forgetmenot.metrics.tango import tango
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True)
class BeyondChance:
    """What was forgotten and gained beyond chance (Harmon et al. 2026, arXiv 2510.17776).

    It assumes guesses that are uniform over the k options and independent before and after. A model that
    always says the same label turns less than that: read it beside the plain counts, never instead of them.

    Attributes:
        forgotten: max(F − F_chance, 0) with F the share that turned from right to wrong, and
            F_chance = (1 − a₀)/(k − 1) · (1 − a₁), a₀ and a₁ being the accuracies before and after.
        gained: The same of the share that turned from wrong to right, with (1 − a₀) · (1 − a₁)/(k − 1).
        most: What could be forgotten, max((k·a₀ − 1)/(k − 1), 0).
    """

    forgotten: float
    gained: float
    most: float


@dataclass(frozen=True)
class PairedDifference:
    """What one task lost between two stages, judged on the same examples.

    Attributes:
        difference: Score before − score after, above 0 where something was lost; None where one is undefined.
        interval: Of the difference: Tango's score interval beside McNemar's test, else the paired
            bootstrap's; None where a resample is undefined.
        p: Two-sided, of the hypothesis that nothing changed.
        p_holm: `p` corrected for the number of tasks tested together; None for a single test.
        test: "exact McNemar", "paired bootstrap" or "clustered bootstrap"; None where answers are missing.
        forgotten: Examples right before and wrong after; None where answers are graded.
        gained: Examples wrong before and right after; None where answers are graded.
        beyond_chance: The same as shares, without what uniform guessing would turn; None where no label is
            guessed.
        n: Examples.
        reason: Why something is None.
    """

    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str | None = None
    forgotten: int | None = None
    gained: int | None = None
    beyond_chance: BeyondChance | None = None
    n: int = 0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `significance` of results.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def paired_difference(
    metric: str,
    gold: Any,
    before: Any,
    after: Any,
    *,
    clusters: NDArray[np.int64] | None = None,
    options: int | None = None,
    resamples: int = 4000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
) -> PairedDifference:
    """Compare two answers [n] to each of the same examples.

    The metric says by which test. McNemar's exact one (McNemar 1947), for the mean of answers that are right
    or wrong, is the binomial test that an example whose answer turned from right to wrong is as likely as one
    that turned the other way. The paired bootstrap test's p is the share of resampled differences that lie
    at least as far from the observed one as that lies from 0, (1 + hits) / (1 + resamples) so that it is
    never 0 (Davison and Hinkley 1997, chapter 4). The interval is Tango's beside McNemar's test and else the
    expanded percentile bootstrap's, wider where the draws are skewed; right at the edge of significance it
    and p may disagree.

    Args:
        metric: Its name.
        gold: What was right, as `measure` takes it.
        before: The answers right after the task was learned.
        after: The answers at the end.
        clusters: The number of each example's cluster, [n]; see `Answers`. McNemar's test takes examples for
            independent, so that with clusters the bootstrap's replaces it.
        options: How many labels there are to choose among.
        resamples: Bootstrap draws of the examples, the same for both answers.
        level: Of the interval.
        seed: Of the draws.
    """
    chosen = metric_named(metric)
    terms = chosen.terms(gold, [before, after])
    first, last = chosen.aggregate(terms, np.ones((1, terms.shape[-1])))[0]
    difference = float(first - last)
    n = terms.shape[-1]
    forgotten = gained = p = None
    if chosen.correct is not None:
        was, still = chosen.correct(gold, [before, after])
        forgotten, gained = int((was & ~still).sum()), int((~was & still).sum())
    exact = chosen.test == "exact McNemar" and clusters is None
    undefined = bool(np.isnan(difference))
    interval: Interval | None
    if exact and forgotten is not None and gained is not None:
        p, interval = mcnemar(forgotten, gained), tango(forgotten, gained, n, level)
    else:
        draws = resample(chosen, terms, resamples, np.random.default_rng(seed), clusters)
        differences = draws[:, 0] - draws[:, 1]
        undefined |= bool(np.isnan(differences).any())
        interval = percentiles(differences, level, n if clusters is None else int(clusters.max()) + 1)
        interval = interval and _for_skewness(interval, differences, level)
        if not undefined:
            # A resample that only rounding keeps from being as far out as the observed difference is a hit.
            hits = int((np.abs(differences - difference) >= abs(difference) - 1e-12).sum())
            p = (1 + hits) / (1 + resamples)

    return PairedDifference(
        difference=None if np.isnan(difference) else difference,
        interval=interval,
        p=p,
        test="exact McNemar" if exact else "paired bootstrap" if clusters is None else "clustered bootstrap",
        forgotten=forgotten,
        gained=gained,
        beyond_chance=None
        if forgotten is None or gained is None or options is None or chosen.reads != "labels"
        else beyond_chance(forgotten, gained, int(was.sum()), n, options),
        n=n,
        reason=f"{metric} is undefined here or in a resample: {chosen.undefined}." if undefined else None,
    )


def _for_skewness(interval: Interval, draws: Floats, level: float) -> Interval:
    """Widen both ends by |γ|·(z² + 2)/6 standard deviations, γ being the skewness of the draws.

    So far off, to first order, is an end of the percentile interval from that of the studentized bootstrap
    (by the Edgeworth expansions of Hall 1992, The Bootstrap and Edgeworth Expansion, chapters 2 and 3). Which
    of the two ends it is follows from the sign for a mean, but not for F1, hence both.
    """
    deviation = float(draws.std())
    if not deviation:
        return interval
    from scipy.special import ndtri

    skewness = float((((draws - draws.mean()) / deviation) ** 3).mean())
    reach = abs(skewness) * (float(ndtri((1 + level) / 2)) ** 2 + 2) / 6 * deviation
    return interval[0] - reach, interval[1] + reach


def beyond_chance(forgotten: int, gained: int, right_before: int, n: int, options: int) -> BeyondChance:
    """Return what was forgotten and gained beyond chance; see `BeyondChance`.

    Args:
        forgotten: How many examples turned from right to wrong.
        gained: How many turned from wrong to right.
        right_before: How many were right before.
        n: Examples.
        options: Labels, two or more.
    """
    before, after = right_before / n, (right_before - forgotten + gained) / n
    by_chance = (1 - before) * (1 - after) / (options - 1)
    return BeyondChance(
        max(forgotten / n - by_chance, 0.0),
        max(gained / n - by_chance, 0.0),
        max((options * before - 1) / (options - 1), 0.0),
    )


def mcnemar(forgotten: int, gained: int) -> float:
    """Return the exact two-sided p of McNemar's test from its two discordant counts; 1 where both are 0."""
    fewer, more = sorted((forgotten, gained))
    if not more:
        return 1.0
    from scipy.special import betainc

    # The binomial distribution up to `fewer` of fewer + more, by the incomplete beta function.
    return float(min(1.0, 2 * betainc(more, fewer + 1, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values, in the same order, corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(value) for value in corrected]
