"""Several answers to the same examples, ranked: which is best, which are as good, and is it chance?"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from forgetmenot.metrics.metric import Floats, Metric
from forgetmenot.metrics.resampling import Interval, percentiles, resample
from forgetmenot.metrics.significance import PairedDifference, holm, paired_difference
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True)
class Ranked:
    """One of the answers.

    Attributes:
        value: Its score; None where that is undefined.
        interval: Of the score, by bootstrap.
        behind: The test of best − this one, Holm-corrected over the others; None for the best itself.
    """

    value: float | None
    interval: Interval | None
    behind: PairedDifference | None


@dataclass(frozen=True)
class Ranking:
    """What `rank` finds.

    Attributes:
        best: The name of the highest score, the first among equals; None where no score is defined.
        ranked: Name to what became of it, in the order that they were given in.
        range: The highest score minus the lowest.
        range_by_chance: The range to expect if no answer were better than another.
        p: Of the hypothesis that none is: the share of permutations whose range is at least as wide.
    """

    best: str | None
    ranked: dict[str, Ranked]
    range: float | None
    range_by_chance: float | None
    p: float | None


def rank_variants(
    metric: str,
    gold: Any,
    answers: Mapping[str, Any],
    *,
    resamples: int = 2000,
    permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Rank answers [n] to the same examples, by a metric.

    Intervals are the percentile bootstrap's, over the same draws for all answers. The best is tested against
    every other by `paired_difference`, corrected for their number (Holm 1979). Since the best was chosen on
    these very examples its lead is too large on average, and a test that finds no difference is the stronger
    finding of the two.

    The range is compared with what it is when the answers to each example are permuted among the ways of
    answering, as in `noise_floor`: a permutation test of "all are equally good" (Fisher 1935), whose p is
    (1 + hits) / (1 + permutations).

    Args:
        metric: Its name.
        gold: What was right, as `measure` takes it.
        answers: Name to answers, as `measure` takes them.
        resamples: Bootstrap draws.
        permutations: How many.
        level: Of the intervals.
        seed: Of all draws.
    """
    chosen = metric_named(metric)
    names = list(answers)
    terms = chosen.terms(gold, list(answers.values()))
    values = chosen.aggregate(terms, np.ones((1, terms.shape[-1])))[0]
    draws = resample(chosen, terms, resamples, np.random.default_rng(seed))
    defined = [k for k in range(len(names)) if not np.isnan(values[k])]
    best = max(defined, key=lambda k: (values[k], -k), default=None)
    behind: dict[int, PairedDifference] = {}
    if best is not None:
        for k in defined:
            if k != best:
                of = [seed, zlib.crc32(names[k].encode())]
                behind[k] = paired_difference(
                    metric,
                    gold,
                    answers[names[best]],
                    answers[names[k]],
                    resamples=resamples,
                    level=level,
                    seed=of,
                )
        tested = {k: test.p for k, test in behind.items() if test.p is not None}
        for k, corrected in zip(tested, holm(list(tested.values())), strict=True):
            behind[k] = replace(behind[k], p_holm=corrected)
    ranked = {
        name: Ranked(
            float(values[k]) if k in defined else None,
            percentiles(draws[:, k], level, terms.shape[-1]),
            behind.get(k),
        )
        for k, name in enumerate(names)
    }
    observed = float(np.ptp(values[defined])) if len(defined) > 1 else None
    by_chance = p = None
    if observed is not None:
        permuted = _permuted_ranges(chosen, terms[defined], permutations, seed)
        # A range that only rounding keeps from being as wide as the observed one is a hit. So is one that is
        # undefined: it must not make p smaller.
        wide = np.isnan(permuted) | (permuted >= observed - 1e-12)
        by_chance = float(permuted.mean()) if not np.isnan(permuted).any() else None
        p = (1 + int(wide.sum())) / (1 + permutations)
    return Ranking(None if best is None else names[best], ranked, observed, by_chance, p)


def _permuted_ranges(metric: Metric, terms: Floats, permutations: int, seed: int) -> Floats:
    """The range [permutations] of scores once each example's terms [s, k, n] are permuted among the s."""
    generator = np.random.default_rng(seed)
    once = np.ones((1, terms.shape[-1]))
    ranges = np.empty(permutations)
    for k in range(permutations):
        order = generator.random((len(terms), 1, terms.shape[-1])).argsort(axis=0)
        ranges[k] = np.ptp(metric.aggregate(np.take_along_axis(terms, order, axis=0), once)[0])
    return ranges
