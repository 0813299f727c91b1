"""Correlation of two scores over tasks: its interval, what noise leaves of it, and each task's weight."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.resampling import Interval

Coefficient = Literal["spearman", "pearson"]
LEAST = 4
"""Fisher's z has the variance 1 / (n − 3): with fewer tasks there is no interval."""


@dataclass(frozen=True)
class Correlation:
    """How two scores of the same tasks go together.

    Attributes:
        coefficient: Spearman's or Pearson's.
        n: Tasks.
        value: None where it is undefined.
        interval: For other tasks that were drawn as these were; None where it is undefined.
        leave_one_out: The lowest and highest value without one of the tasks; None where one is undefined.
        hinges_on: The task without which the value moves most; None where it moves without none.
        reason: Why something is None; empty where nothing is.
    """

    coefficient: Coefficient
    n: int
    value: float | None
    interval: Interval | None
    leave_one_out: Interval | None
    hinges_on: str | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        pairs = {
            name: list(pair) if (pair := getattr(self, name)) else None
            for name in ("interval", "leave_one_out")
        }
        return {**asdict(self), **pairs}


def correlate(
    tasks: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    coefficient: Coefficient = "spearman",
    level: float = 0.95,
) -> Correlation:
    """Correlate two scores over tasks.

    Args:
        tasks: Their names [n].
        x: A score of each [n].
        y: Another [n].
        coefficient: Of ranks, or of the values.
        level: Of the interval.
    """
    compute = COEFFICIENTS[coefficient]
    n, value = len(tasks), compute(x, y)
    if value is None:
        reason = "fewer than two tasks" if n < 2 else "one of the scores is the same on every task"
        return Correlation(coefficient, n, None, None, None, None, reason)
    without = [compute(np.delete(x, k), np.delete(y, k)) for k in range(n)]
    known = [one for one in without if one is not None]
    extremes = (min(known), max(known)) if len(known) == n else None
    moves = [abs(one - value) for one in known] if extremes else []
    hinge = int(np.argmax(moves)) if moves and max(moves) > 0 else None
    interval = correlation_interval(value, n, coefficient, level)
    return Correlation(
        coefficient,
        n,
        value,
        interval,
        extremes,
        None if hinge is None else tasks[hinge],
        "" if interval else f"an interval takes {LEAST} tasks or more",
    )


def correlation_interval(
    r: float, n: int, coefficient: Coefficient = "spearman", level: float = 0.95
) -> Interval | None:
    """The interval of a correlation over n independent pairs, by Fisher's z = artanh r; None for n < 4.

    The variance of z is 1 / (n − 3) for Pearson's (Fisher 1921), exact in the limit for normal pairs, and
    (1 + r²/2) / (n − 3) for Spearman's (Bonett and Wright 2000, Psychometrika 65). Ranks that agree in full
    would give an interval without width; ours then begins where that of the next lower value does, of n ranks
    of which two neighbours have changed places. Pearson's has none at ±1.
    """
    if n < LEAST:
        return None
    from scipy.special import ndtri

    perfect = abs(r) > 1 - 1e-12
    if perfect and coefficient == "pearson":
        return None
    inner = np.sign(r) * (1 - 12 / (n * (n * n - 1))) if perfect else r
    variance = (1 + inner * inner / 2 if coefficient == "spearman" else 1.0) / (n - 3)
    reach = float(ndtri((1 + level) / 2)) * float(np.sqrt(variance))
    low, high = (float(np.tanh(np.arctanh(inner) + side * reach)) for side in (-1, 1))
    if perfect:
        return (low, 1.0) if r > 0 else (-1.0, high)
    return low, high


def pearson(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    one, other = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if len(one) < 2:
        return None
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    tiny = 1e-12 * max(1.0, float(np.abs(x).max()), float(np.abs(y).max())) ** 2
    return None if scale <= tiny else float(np.clip(one @ other / scale, -1, 1))


def spearman(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> float | None:
    """Spearman's: Pearson's of the ranks, those of equal values shared; None where one does not vary."""
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))


COEFFICIENTS: dict[Coefficient, Callable[[Any, Any], float | None]] = {
    "spearman": spearman,
    "pearson": pearson,
}


def reliability(values: Sequence[float], standard_errors: Sequence[float]) -> float | None:
    """The share of the variance of scores over tasks that is not noise of their test examples, 0 to 1.

    1 − mean(standard error²) / variance, as in classical test theory (Spearman 1904; Lord and Novick 1968).
    The noise of two scores keeps their correlation below √(reliability · reliability), whatever the true one
    is; two scores of the same examples share some noise, which raises it. None where the values do not vary.
    """
    if len(values) < 2:
        return None
    variance = float(np.var(values, ddof=1))
    if variance <= 0:
        return None
    return float(np.clip(1 - np.mean(np.square(standard_errors)) / variance, 0, 1))
