"""The spread of a figure over the training seeds of one cell of a study."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forgetmenot.metrics.resampling import Interval


@dataclass(frozen=True)
class Spread:
    """A figure over n seeds.

    Attributes:
        mean: Over the seeds.
        std: The sample standard deviation, with n − 1 in the denominator; None for a single seed.
        interval: The 95 % confidence interval of the mean over all seeds: mean ± t(n−1) · std / √n, the seeds
            being taken as drawn from a normal distribution (Student 1908); None for a single seed.
        n: Seeds.
    """

    mean: float
    std: float | None
    interval: Interval | None
    n: int

    @property
    def p(self) -> float | None:
        """Two-sided p of Student's t test that the mean over all seeds is zero; None without a deviation."""
        if not self.std:
            return None
        from scipy.special import stdtr

        return float(2 * stdtr(self.n - 1, -abs(self.mean) / (self.std / self.n**0.5)))

    def to_json(self) -> dict[str, Any]:
        """Return a figure of a cell in study.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Return the mean of a figure over seeds, and how sure it is.

    It tells how far training with other seeds would move the figure; the bootstrap intervals of a run tell
    how far other examples would.

    Args:
        values: One for each seed, at least one.
        level: The confidence of the interval.
    """
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Spread(mean, None, None, n)
    from scipy.special import stdtrit  # here: its import takes as long as the rest of a list or a refusal

    std = float(np.std(values, ddof=1))
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * std / n**0.5
    return Spread(mean, std, (mean - reach, mean + reach), n)
