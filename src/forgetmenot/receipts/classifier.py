"""The protocol of a small supervised model that writes receipts."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forgetmenot.metrics.metric import Floats

Texts = tuple[str, ...]
"""The texts of one example: a sentence, or a pair of them."""
Labels = NDArray[np.int64]


class Classifier(Protocol):
    """A model that is fitted once and then answers."""

    def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
        """Learn `labels` [n], each below `classes`; every class is among them."""

    def scores(self, texts: Sequence[Texts]) -> Floats:
        """Unnormalised log-probabilities [n, classes]."""

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
