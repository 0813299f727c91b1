"""The difference of two shares of right answers to the same examples: Tango's score interval.

Of n examples, g turned from wrong to right (gained) and l from right to wrong (lost). The difference of the
shares, after − before, is (g − l) / n. Its score test of a difference δ (Tango 1998, Statistics in Medicine
17, 891-908, equations 10 and 12) is

    z(δ) = (g − l − n·δ) / √(n·(2q + δ·(1 − δ))),

q being the likelihood's maximum of the probability of losing, given δ: the larger root of A·q² + B·q + C with
A = 2n, B = −g − l + (2n − g + l)·δ and C = −l·δ·(1 − δ). The interval holds the differences that the test
does not refuse. At δ = 0 it is McNemar's test without a continuity correction.
"""

import numpy as np

from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.resampling import Interval

_HALVINGS = 52  # of [-1, 1]: to float precision


def score_statistic(gained: Floats, lost: Floats, n: Floats, difference: Floats) -> Floats:
    """Return z(δ), broadcast; above 0 where the answers speak for more than δ.

    It falls as δ rises. Where no answer turned and δ is 0 it is 0.
    """
    linear = -gained - lost + (2 * n - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    lose = np.maximum((root - linear) / (4 * n), 0.0)
    variance = n * np.maximum(2 * lose + difference * (1 - difference), 0.0)
    distance = gained - lost - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        z = distance / np.sqrt(variance)
    return np.where(variance > 0, z, np.where(distance == 0, 0.0, np.copysign(np.inf, distance)))


def tango_bounds(gained: Floats, lost: Floats, n: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the ends of the interval of (gained − lost) / n for arrays of counts, broadcast.

    Args:
        gained: Examples that turned from wrong to right.
        lost: Examples that turned from right to wrong.
        n: Examples, at least one.
        level: The confidence of the two ends together.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    gained, lost, n = np.broadcast_arrays(*(np.asarray(one, dtype=np.float64) for one in (gained, lost, n)))
    return _where(gained, lost, n, z), _where(gained, lost, n, -z)


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Return the interval of one difference; see `tango_bounds`."""
    low, high = tango_bounds(np.array(float(gained)), np.array(float(lost)), np.array(float(n)), level)
    return float(low), float(high)


def _where(gained: Floats, lost: Floats, n: Floats, z: float) -> Floats:
    """The difference whose statistic is z, by halving [−1, 1]."""
    low, high = np.full(gained.shape, -1.0), np.full(gained.shape, 1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = score_statistic(gained, lost, n, middle) > z
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.round((low + high) / 2, 12))  # so that −1 and 1 are reached
