"""Bootstrap draws of examples, and the intervals that are read off them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from forgetmenot.metrics.metric import Floats, Metric

Interval = tuple[float, float]

_CHUNK = 1 << 21  # counts held at once: 16 MiB


def resample(
    metric: Metric,
    terms: Floats,
    resamples: int,
    generator: np.random.Generator,
    clusters: NDArray[np.int64] | None = None,
) -> Floats:
    """Return the scores [resamples, s] of bootstrap draws of the examples of `terms` [s, k, n].

    With `clusters` [n], numbered from 0 on, whole clusters are drawn (Davison and Hinkley 1997, section 3.8).
    """
    n = terms.shape[-1]
    units = n if clusters is None else int(clusters.max()) + 1
    return np.concatenate(
        [
            metric.aggregate(terms, counts if clusters is None else counts[:, clusters])
            for counts in _draws(units, n, resamples, generator)
        ]
    )


def _draws(units: int, n: int, resamples: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each of some units was drawn, [b, units], until there were `resamples` draws."""
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        b = min(size, resamples - start)
        drawn = generator.integers(units, size=(b, units)) + units * np.arange(b)[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * units).reshape(b, units).astype(np.float64)


def percentiles(scores: Floats, level: float, n: int | None = None) -> Interval | None:
    """Return the interval that holds the middle `level` of the scores, None where one is undefined or n is 1.

    With `n`, the number of independent examples, the interval is the expanded percentile one: as many
    standard deviations wide as a t interval of n − 1 degrees of freedom, and √(n/(n−1)) times that.
    """
    if np.isnan(scores).any() or (n is not None and n < 2):  # one example alone says nothing of its spread
        return None
    tail = (1 - level) / 2
    if n is not None:
        from scipy.special import ndtr, stdtrit  # here: its import takes as long as the rest of a list

        tail = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval (1927) of a share of right answers among n independent ones."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, middle - half), min(1.0, middle + half)
