"""Metrics of labels: an answer is right or wrong."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats, Formula, Metric, mean, of_sums, ratio

NO_LABEL = -1
"""The index of an answer that names none of the labels: wrong, whatever is gold."""


def _labels(gold: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both as label indices of one shape [..., n]."""
    pair = np.asarray(gold), np.asarray(predicted)
    if any(array.dtype.kind not in "iu" for array in pair):
        raise ValueError("Labels must be integer indices.")
    gold, predicted = (array.astype(np.int64) for array in pair)
    if gold.shape != predicted.shape[-1:]:
        raise ValueError(f"{gold.shape} gold labels do not fit {predicted.shape} predicted ones.")
    return np.broadcast_to(gold, predicted.shape), predicted


def same_label(gold: Any, predicted: Any) -> NDArray[np.bool_]:
    """Whether label indices are equal: gold [n], predicted [..., n] to [..., n]."""
    gold, predicted = _labels(gold, predicted)
    same: NDArray[np.bool_] = np.equal(gold, predicted)
    return same


def _same_terms(gold: Any, predicted: Any) -> Floats:
    return same_label(gold, predicted)[..., None, :].astype(np.float64)


def _binary_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    """True positives, predicted positives, gold positives.

    An answer that names no label is wrong, so it counts as the label that is not gold.
    """
    gold, predicted = _labels(gold, predicted)
    if not (np.isin(gold, (0, 1)).all() and np.isin(predicted, (0, 1, NO_LABEL)).all()):
        raise UserError(
            "The metric 'f1' is for two labels, the second being the positive one; choose another."
        )
    # No label is wrong whatever is gold: a missed positive, or a false one.
    positive = np.where(predicted == NO_LABEL, 1 - gold, predicted)
    return np.stack([gold * positive, positive, gold], axis=-2).astype(np.float64)


def _f1(sums: Floats, _n: Floats) -> Floats:
    hits, predicted, gold = np.moveaxis(sums, -1, 0)
    return ratio(2 * hits, predicted + gold)


def _confusion_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    """Correct, then how often each label is gold, then how often each is predicted: 1 + 2·labels."""
    gold, predicted = _labels(gold, predicted)
    labels = np.union1d(gold, predicted)[:, None]
    terms = [
        np.equal(gold, predicted)[..., None, :],
        gold[..., None, :] == labels,
        predicted[..., None, :] == labels,
    ]
    return np.concatenate(terms, axis=-2).astype(np.float64)


def _matthews(sums: Floats, n: Floats) -> Floats:
    """The correlation of gold and predicted labels for any number of labels (Gorodkin 2004)."""
    correct = sums[..., 0]
    gold, predicted = np.split(sums[..., 1:], 2, axis=-1)
    covariance = correct * n - (gold * predicted).sum(axis=-1)
    spread = np.sqrt(n**2 - (gold**2).sum(axis=-1)) * np.sqrt(n**2 - (predicted**2).sum(axis=-1))
    # A constant answer says nothing, which is what 0 means: the convention of scikit-learn.
    matthews: Floats = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
    return matthews


ACCURACY = Metric(
    "accuracy",
    1,
    Formula(
        "Accuracy",
        "correct / n",
        "scikit-learn accuracy_score",
        "The share of examples answered with the right label.",
    ),
    "labels",
    _same_terms,
    mean,
    kinds=("choice",),
    unit="share of examples",
    chance="majority",
    test="exact McNemar",
    correct=same_label,
)

PREFERENCE = Metric(
    "preference",
    1,
    Formula(
        "Preference accuracy",
        "pairs with log p(chosen | prompt) > log p(rejected | prompt) / n; sums over an answer's tokens, its "
        "end included",
        "the reward accuracy of DPO with a uniform reference; sums rather than means are our choice",
        "The share of pairs in which the chosen answer is likelier than the rejected one; 0.5 is a coin.",
    ),
    "labels",
    _same_terms,
    mean,
    kinds=("preference",),
    unit="share of pairs",
    chance=0.5,  # labels say only which of a pair is meant, so always giving one is no answer: a coin is
    test="exact McNemar",
    correct=same_label,
)

F1 = Metric(
    "f1",
    2,
    Formula(
        "F1",
        "2·TP / (2·TP + FP + FN), the positive class being the task's second label; an answer without a "
        "label is a false positive or a false negative",
        "scikit-learn f1_score",
        "The harmonic mean of precision and recall on the positive label.",
    ),
    "labels",
    _binary_terms,
    of_sums(_f1),
    kinds=("choice",),
    chance="majority",
    correct=same_label,
    label_count=2,
    undefined="neither the gold labels nor the predicted ones have a positive",
)

MATTHEWS = Metric(
    "matthews",
    1,
    Formula(
        "Matthews correlation",
        "(c·n − Σ_k p_k·t_k) / √((n² − Σ p_k²)·(n² − Σ t_k²)), of n examples c correct, p_k predicted as and "
        "t_k being label k; 0 for a constant answer",
        "Gorodkin 2004; scikit-learn matthews_corrcoef",
        "How well predicted and gold labels agree: 1 is perfect, 0 no better than a constant answer.",
    ),
    "labels",
    _confusion_terms,
    of_sums(_matthews),
    kinds=("choice",),
    unit="correlation",
    chance="majority",
    correct=same_label,
    margin=0.05,
)
