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

    With two seeds or more it is Student's t test on the seed-paired differences, n − 1 degrees of freedom,
    whose standard error is not below that of the examples: max(sd(by_seed) / √n, sd(resampled)). The same
    examples are scored with every seed, so that what they have in common does not show between the seeds. By
    simulation (`scripts/false_positives.py`) two equal methods are told apart in at most 6 % of comparisons
    with 3 and 5 seeds, where the examples alone would give up to 64 %.

    With one seed p is that of a normal test, z = difference / sd(resampled), in the manner of the paired t
    test but for any figure of a score matrix (Efron and Tibshirani 1993, chapters 12 and 13), and the
    interval the percentile bootstrap's.

    Args:
        first: A figure, such as the mean over the runs of one model.
        second: The figure that it is compared with.
        resampled: First minus second in each bootstrap draw of the examples, [resamples], the draws being
            paired (`replicates`).
        by_seed: First minus second with each training seed, all else being equal.
        level: Of the interval.

    Raises:
        ValueError: A resample is undefined.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    interval = percentiles(resampled, level)
    if interval is None:
        raise ValueError("The figure is undefined in a resample.")
    difference, deviation, seeds = first - second, float(np.std(resampled, ddof=1)), len(by_seed)
    if seeds > 1:
        error = max(float(np.std(by_seed, ddof=1)) / seeds**0.5, deviation)
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
