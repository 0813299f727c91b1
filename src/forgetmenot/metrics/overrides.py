"""Override rates: how often a model overrides a receipt, and how well; accuracy by confidence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Overrides:
    """How a model that was shown receipts has answered.

    SuperContext (Yang et al. 2024) speaks of overriding without a formula; these definitions are our own. An
    answer overrides a receipt where it is another label.

    Attributes:
        n: Examples.
        overridden: Those whose answer is not the receipt's label.
        right: Those among `overridden` whose answer is right.
        rate: overridden / n; None without examples.
        precision: right / overridden; None where nothing is overridden.
    """

    n: int
    overridden: int
    right: int

    @property
    def rate(self) -> float | None:
        """The share of receipts that are overridden."""
        return self.overridden / self.n if self.n else None

    @property
    def precision(self) -> float | None:
        """The share of overriding answers that are right."""
        return self.right / self.overridden if self.overridden else None

    def to_json(self) -> dict[str, Any]:
        """All five numbers, and a reason where one is missing."""
        missing = {} if self.overridden else {"reason": "No receipt was overridden."}
        return {**asdict(self), "rate": self.rate, "precision": self.precision, **missing}


def overrides(gold: Any, receipt: Any, answered: Any) -> Overrides:
    """Count overrides: what was right [n], the receipt's label [n], and what was answered with it [n]."""
    gold, receipt, answered = np.asarray(gold), np.asarray(receipt), np.asarray(answered)
    over = answered != receipt
    return Overrides(len(gold), int(over.sum()), int((over & (answered == gold)).sum()))


def by_confidence(confidence: Any, gold: Any, answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Accuracy of several answers within bins of the receipt's confidence.

    Args:
        confidence: Of each receipt, from 0 to 1 [n].
        gold: What was right [n].
        answers: By name, what was answered [n].

    Returns:
        For each of ten bins of width 0.1 that holds examples: `from`, `to`, `n`, the mean `confidence`, and
        the `accuracy` of each answer. A bin holds its lower end, and the last one 1.
    """
    confidence, gold = np.asarray(confidence, dtype=np.float64), np.asarray(gold)
    bins = _bins(confidence)
    return [
        {
            "from": k / BINS,
            "to": (k + 1) / BINS,
            "n": int((bins == k).sum()),
            "confidence": float(confidence[bins == k].mean()),
            "accuracy": {
                name: float((np.asarray(a) == gold)[bins == k].mean()) for name, a in answers.items()
            },
        }
        for k in np.unique(bins).tolist()
    ]


def calibration_error(confidence: Any, right: Any) -> float:
    """Expected calibration error over ten bins (Guo et al. 2017, eq. 3): Σ n_b/n · |accuracy − confidence|.

    Args:
        confidence: Of each answer, from 0 to 1 [n].
        right: Whether it is right [n].
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bins = _bins(confidence)
    gaps = [abs((right - confidence)[bins == k].sum()) for k in np.unique(bins)]
    return float(sum(gaps) / len(confidence))


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.arange(1, BINS) / BINS
    return np.digitize(confidence, edges)
