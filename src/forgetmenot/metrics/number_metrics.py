"""Metrics of numbers: correlations of graded answers, and the likelihood of a text."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from forgetmenot.metrics.metric import Floats, Formula, Metric, of_sums, ratio

_CONSTANT = "the gold or the predicted numbers are constant or not finite"


def _number_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    """The two numbers themselves."""
    predicted = np.asarray(predicted, dtype=np.float64)
    gold = np.asarray(gold, dtype=np.float64)
    if gold.shape != predicted.shape[-1:]:
        raise ValueError(f"{gold.shape} gold numbers do not fit {predicted.shape} predicted ones.")
    return np.stack([np.broadcast_to(gold, predicted.shape), predicted], axis=-2)


def _pearson(terms: Floats, counts: Floats) -> Floats:
    return np.stack([_correlation(counts, x, y) for x, y in terms], axis=-1)


def _spearman(terms: Floats, counts: Floats) -> Floats:
    return np.stack([_correlation(counts, _ranks(counts, x), _ranks(counts, y)) for x, y in terms], axis=-1)


def _ranks(counts: Floats, x: Floats) -> Floats:
    """Mid-ranks [b, n] of x [n] where each example stands in the list `counts` [b, n] times."""
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(size, axis=1) - (size - 1) / 2
    ranks: Floats = middle[:, group]
    return np.where(np.isnan(x), np.nan, ranks)


def _correlation(counts: Floats, x: Floats, y: Floats) -> Floats:
    """Pearson's correlation [b] of x and y ([n] or [b, n]); nan where one of them is constant."""
    n = counts.sum(axis=1, keepdims=True)

    def centred(v: Floats) -> Floats:
        counted = counts > 0
        spread = np.where(counted, v, -np.inf).max(axis=1) - np.where(counted, v, np.inf).min(axis=1)
        # Rounding can leave a constant with a tiny variance, so constancy is read off the values.
        mean = (counts * v).sum(axis=1, keepdims=True) / n
        return np.where((spread > 0)[:, None], v - mean, np.nan)

    dx, dy = centred(x), centred(y)
    covariance = (counts * dx * dy).sum(axis=1)
    scale = np.sqrt((counts * dx * dx).sum(axis=1)) * np.sqrt((counts * dy * dy).sum(axis=1))
    return np.clip(ratio(covariance, scale), -1.0, 1.0)


def _loss_terms(_gold: Any, predicted: ArrayLike) -> Floats:
    """The sum of log-probabilities and the number of tokens."""
    predicted = np.asarray(predicted, dtype=np.float64)
    if predicted.shape[-1] != 2:
        raise ValueError("loss takes a (sum of log-probabilities, number of tokens) for each example.")
    return np.swapaxes(predicted, -1, -2)


def _log_likelihood(sums: Floats, _n: Floats) -> Floats:
    per_token = ratio(sums[..., 0], sums[..., 1])
    return np.where(np.isfinite(per_token), per_token, np.nan)


SPEARMAN = Metric(
    "spearman",
    1,
    Formula(
        "Spearman correlation",
        "Pearson correlation of the mid-ranks of gold and predicted numbers",
        "scipy.stats.spearmanr",
        "How far the predicted numbers are in the same order as the gold ones.",
    ),
    "numbers",
    _number_terms,
    _spearman,
    unit="correlation",
    margin=0.05,
    undefined=_CONSTANT,
)

PEARSON = Metric(
    "pearson",
    1,
    Formula(
        "Pearson correlation",
        "cov(gold, predicted) / (σ(gold)·σ(predicted))",
        "scipy.stats.pearsonr",
        "How far the predicted numbers rise in a line with the gold ones.",
    ),
    "numbers",
    _number_terms,
    _pearson,
    unit="correlation",
    margin=0.05,
    undefined=_CONSTANT,
)

LOSS = Metric(
    "loss",
    1,
    Formula(
        "Loss per token",
        "−Σ log p(token) / number of tokens, in nats; the files hold it with its sign turned, the "
        "log-likelihood per token, so that higher is better in every column",
        "the usual language-model loss, per token over the whole split",
        "How badly the model predicts the text; lower is better, 0 would be certainty.",
    ),
    "likelihoods",
    _loss_terms,
    of_sums(_log_likelihood),
    kinds=("answer", "messages", "text"),
    unit="nats per token",
    direction="lower",
    bounded=False,
    margin=0.05,
    undefined="no token is scored, or a log-probability is not finite",
)
