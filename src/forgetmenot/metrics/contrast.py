"""Is one model better than another, or is it chance among the examples? Many runs on either side."""

from dataclasses import dataclass

import numpy as np

from forgetmenot.metrics.intervals import Interval, percentiles
from forgetmenot.metrics.matrix import Floats


@dataclass(frozen=True)
class Contrast:
    """A difference of two figures over the same examples.

    Attributes:
        difference: The first less the second.
        interval: Of the difference, by paired bootstrap.
        p: Two-sided, of the hypothesis that the two do not differ; None where no resample differs from
            another though the two do.
    """

    difference: float
    interval: Interval
    p: float | None


def contrast(first: float, second: float, resampled: Floats, level: float = 0.95) -> Contrast:
    """Judge a difference by what other draws of the same examples would make of it.

    p is that of a normal test, z = difference / (standard deviation of the resampled differences), in the
    manner of the paired t test but for any figure of a score matrix (Efron and Tibshirani 1993, chapters 12
    and 13). Unlike a share of resamples it can be as small as a correction for hundreds of comparisons asks.
    It tells whether other examples would show the same, of these trained models; not whether other training
    seeds would.

    Args:
        first: A figure, such as the mean over the runs of one model.
        second: The figure that it is held against.
        resampled: The first less the second in each bootstrap draw, [resamples], the draws being paired
            (`replicates`).
        level: Of the interval.

    Raises:
        ValueError: A resample is undefined.
    """
    interval = percentiles(resampled, level)
    if interval is None:
        raise ValueError("The figure is undefined in a resample.")
    difference, deviation = first - second, float(np.std(resampled, ddof=1))
    if deviation > 1e-12:
        from scipy.special import ndtr

        return Contrast(difference, interval, float(2 * ndtr(-abs(difference) / deviation)))
    return Contrast(difference, interval, 1.0 if abs(difference) < 1e-12 else None)
