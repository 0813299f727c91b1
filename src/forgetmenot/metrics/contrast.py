"""Tests of one group of runs against another, over the same examples and, if there are several, seeds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.resampling import Interval, percentiles


@dataclass(frozen=True)
class Contrast:
    """A difference of two figures over the same examples.

    Attributes:
        difference: First minus second.
        interval: Of the difference.
        p: Two-sided, of the hypothesis that the two do not differ; None where no resample differs from
            another though the two do.
        seeds: Over how many training seeds it was tested, together with the examples. With 1 it speaks of
            these checkpoints: whether others of the same methods would differ alike is unknown.
    """

    difference: float
    interval: Interval
    p: float | None
    seeds: int = 1


def contrast(
    first: float,
    second: float,
    resampled: Floats,
    by_seed: Sequence[float] = (),
    level: float = 0.95,
) -> Contrast:
    """Judge a difference by what other examples and, where there are several, other seeds would make of it.

    With n ≥ 2 seeds it is Student's t test on the seed-paired differences, n − 1 degrees of freedom, with the
    variance c + s²/n. The same examples are scored with every seed: what the two differ in on these examples
    whatever the seed does not show between the seeds, and that is c. With V the variance over resamples of
    the mean over seeds, and V₁ that of a single seed (the mean over the seeds), V = c + e/n and V₁ = c + e
    for an e that the seeds do not share, so that c = (n V − V₁) / (n − 1), not below 0. s² has e in it, and
    is taken for no less where few seeds show less by chance. By simulation (`scripts/false_positives.py`) two
    equal methods are seldom told apart with 3 to 20 seeds, where the examples alone would do it in half of
    the comparisons and more.

    With one seed p is that of a normal test, z = difference / sd(resampled), in the manner of the paired t
    test but for any figure of a score matrix (Efron and Tibshirani 1993, chapters 12 and 13), and the
    interval the percentile bootstrap's.

    Args:
        first: A figure, such as the mean over the runs of one model.
        second: The figure that it is compared with.
        resampled: First minus second in each bootstrap draw of the examples, the draws being paired
            (`replicates`): [seeds, resamples]; [resamples] where there is one seed.
        by_seed: First minus second with each training seed, all else being equal.
        level: Of the interval.

    Raises:
        ValueError: A resample is undefined, or there are not as many rows of them as seeds.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    seeds, drawn = len(by_seed), np.atleast_2d(resampled)
    if len(drawn) != max(seeds, 1):
        raise ValueError(f"Give resamples for each of {seeds} seeds (given: {len(drawn)}).")
    interval = percentiles(drawn.mean(axis=0), level)
    if interval is None:
        raise ValueError("The figure is undefined in a resample.")
    difference, deviation = first - second, float(np.std(drawn.mean(axis=0), ddof=1))
    if seeds > 1:
        single = float(np.var(drawn, axis=1, ddof=1).mean())
        shared = max(0.0, (seeds * deviation**2 - single) / (seeds - 1))
        own = max(float(np.var(by_seed, ddof=1)), single - shared)
        error = (shared + own / seeds) ** 0.5
        if error > 1e-12:
            reach = -float(stdtrit(seeds - 1, (1 - level) / 2)) * error
            p = float(2 * stdtr(seeds - 1, -abs(difference) / error))
            return Contrast(difference, (difference - reach, difference + reach), p, seeds)
    elif deviation > 1e-12:
        return Contrast(difference, interval, float(2 * ndtr(-abs(difference) / deviation)))
    return Contrast(difference, interval, 1.0 if abs(difference) < 1e-12 else None, max(seeds, 1))


MOST_FLIPPED = 20  # a million ways to flip them


def sign_flip(differences: Sequence[float]) -> float:
    """The exact two-sided p of the hypothesis that paired differences lie about 0 alike on both sides.

    The share of all 2ⁿ ways to choose their signs whose sum is at least as far from 0 (Fisher 1935, The
    Design of Experiments, section 21). It assumes no distribution, but only few values are possible: the
    smallest with six seeds is 2/64 = .031, with four .125.

    Args:
        differences: One for each seed, at least one and at most 20.

    Raises:
        ValueError: There are none, or more.
    """
    if not 0 < len(differences) <= MOST_FLIPPED:
        raise ValueError(f"Give 1 to {MOST_FLIPPED} differences (given: {len(differences)}).")
    values = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= sums[0] - 1e-12 * (1 + np.abs(values).sum())))
