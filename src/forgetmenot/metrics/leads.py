"""Leads: how far the right label's log-likelihood lies above the best other one. An early warning.

Where an answer is chosen by likelihood, its lead says how close it came to another answer. Leads fall before
answers turn, and their mean is known more surely than a share of right answers: with the same examples a fall
is seen earlier. It is no loss yet, and no verdict rests on it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.resampling import Interval

WARNS_FROM = 0.1  # ours: of the leads' own standard deviation; a smaller fall is seen with many examples only


@dataclass(frozen=True)
class Lead:
    """The mean lead of the right label by two models, in nats.

    Attributes:
        before: By the first model.
        after: By the second.
        difference: after − before.
        interval: Of the difference: Student's t interval on the examples' differences, whose standard error
            counts those of a cluster together (Miller 2024, arXiv 2411.00640, section 2.2); None for one
            example or cluster.
        warns: Whether it fell, surely and by no trifle: the interval lies below 0, and the fall is a tenth or
            more of the first model's standard deviation over examples.
    """

    before: float
    after: float
    difference: float
    interval: Interval | None
    warns: bool

    def to_json(self) -> dict[str, Any]:
        """Return the `lead` of a verdict in results.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def lead(answers: Answers, level: float = 0.95) -> Lead | None:
    """Compare the leads of two models' answers; None where one of them has none.

    Args:
        answers: With the leads of both, [n] each.
        level: Of the interval.
    """
    if len(answers.leads) != 2 or any(one is None for one in answers.leads):
        return None
    first, second = (np.asarray(one, dtype=np.float64) for one in answers.leads)
    differences = second - first
    if not np.isfinite(differences).all():
        return None
    difference = float(differences.mean())
    interval = _interval(differences, answers, level)
    trifle = WARNS_FROM * float(np.std(first))
    warns = interval is not None and interval[1] < 0 and -difference >= trifle
    return Lead(float(first.mean()), float(second.mean()), difference, interval, warns)


def _interval(differences: Floats, answers: Answers, level: float) -> Interval | None:
    from scipy.special import stdtrit

    cluster = np.arange(len(differences)) if answers.clusters is None else answers.clusters
    units = int(cluster.max()) + 1
    if units < 2:
        return None
    mean = float(differences.mean())
    sums = np.bincount(cluster, weights=differences - mean, minlength=units)
    error = float(np.sqrt(units / (units - 1) * (sums**2).sum())) / len(differences)
    reach = -float(stdtrit(units - 1, (1 - level) / 2)) * error
    return mean - reach, mean + reach
