"""The embedded small model: logistic regression over TF-IDF features; seconds on a CPU, no download."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.classifier import Labels, Texts

STRENGTH = 10.0  # scikit-learn's C, the inverse of the penalty; our choice


def check_installed() -> None:
    """Say how to get scikit-learn where it is not there.

    Raises:
        UserError: It is not installed.
    """
    if find_spec("sklearn") is None:
        raise UserError(
            "receipts.model: tfidf needs scikit-learn, which is not installed; "
            "pip install 'forgetmenot[receipts]'."
        )


class TfidfClassifier:
    """Words and pairs of words, weighted by TF-IDF with sublinear counts, under L2-penalised regression.

    For a pair of texts the features are those of each, their product and their absolute difference, so that a
    linear model can see what the two have in common.
    """

    def __init__(self) -> None:
        check_installed()
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._words: Any = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"
        )
        self._regression: Any = LogisticRegression(C=STRENGTH, max_iter=1000)

    def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
        """Learn the vocabulary and the weights; deterministic."""
        self._words.fit([text for one in texts for text in one])
        self._regression.fit(self._features(texts), labels)

    def scores(self, texts: Sequence[Texts]) -> Floats:
        """Log-odds; for two classes half of them on either side, so that their softmax is the sigmoid."""
        decided = np.asarray(self._regression.decision_function(self._features(texts)), dtype=np.float64)
        return np.column_stack([-decided / 2, decided / 2]) if decided.ndim == 1 else decided

    @property
    def parameters(self) -> int:
        """Weights, intercepts and inverse document frequencies."""
        regression = self._regression
        return int(regression.coef_.size + regression.intercept_.size + self._words.idf_.size)

    def _features(self, texts: Sequence[Texts]) -> Any:
        from scipy.sparse import hstack

        parts = [self._words.transform(column) for column in zip(*texts, strict=True)]
        if len(parts) == 2:
            parts += [parts[0].multiply(parts[1]), abs(parts[0] - parts[1])]
        return hstack(parts, format="csr")
