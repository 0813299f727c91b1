"""One column of the score matrix before scoring: what was answered after each stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True, eq=False)
class Answers:
    """One column of the score matrix before scoring.

    Attributes:
        metric: Its name.
        gold: What was right, [n], as `measure` takes it.
        predicted: What the model answered after each stage, as `measure` takes it, to the same examples in
            the same order; None for a stage whose cell is missing.
        clusters: The number of the cluster of each example, [n], from 0 on without gaps; None where each is
            its own. Examples of a cluster are drawn together: questions on one passage, rows that repeat.
        options: How many labels there are to choose among; None where none are.
        leads: After each stage, how far the right label's log-likelihood lies above the best other one, [n],
            in nats; None, or nothing at all, where labels are not chosen by likelihood.
    """

    metric: str
    gold: Any
    predicted: Sequence[Any]
    clusters: NDArray[np.int64] | None = None
    options: int | None = None
    leads: Sequence[Floats | None] = ()

    @property
    def present(self) -> list[int]:
        """The stages that have answers."""
        return [i for i, answers in enumerate(self.predicted) if answers is not None and len(answers)]

    def terms(self) -> Floats:
        """Return the metric's terms of the answers that there are, [stages, k, n]."""
        return metric_named(self.metric).terms(self.gold, [self.predicted[stage] for stage in self.present])

    @property
    def cluster_of_each(self) -> NDArray[np.int64]:
        """The number of each example's cluster, its own where it has none."""
        n = len(self.predicted[self.present[0]])
        return np.arange(n) if self.clusters is None else self.clusters

    @property
    def independent(self) -> int:
        """How many independent examples, or clusters, there are."""
        return int(self.cluster_of_each.max()) + 1 if self.present else 0
