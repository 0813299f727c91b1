"""Task metrics: how good a list of answers is, plainly and under resampling.

A metric is two small functions. `terms` says what each example contributes: a few numbers that depend on
that example alone. `aggregate` makes a score of the terms and of how often each example counts. Counting
every example once is the plain score; counting it as often as it was drawn is a bootstrap replicate; and
whatever is permuted or resampled, `terms` (where ROUGE is slow) runs only once.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetmenot.errors import UserError, nearest
from forgetmenot.metrics.formulas import FORMULAS, Formula
from forgetmenot.metrics.sari import sari

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A way to score answers; higher is better in every one.

    Attributes:
        name: As a task names it.
        version: Goes up whenever the same answers would get another score.
        bounded: Whether scores lie in a fixed range, so that averaging it with other metrics makes sense.
        terms: (gold [n], predicted [..., n]) to what each example contributes, [..., k, n].
        aggregate: (terms [s, k, n], counts [b, n]) to scores [b, s]. Exact to the last bit whatever the
            number of threads.
        correct: (gold [n], predicted [..., n]) to right or wrong, [..., n]; None where an answer is graded.
        undefined: Why there may be no score (`aggregate` gives nan), as the end of a sentence.
    """

    name: str
    version: int
    bounded: bool
    terms: Callable[[Any, Any], Floats]
    aggregate: Callable[[Floats, Floats], Floats]
    correct: Callable[[Any, Any], NDArray[np.bool_]] | None = None
    undefined: str = "there are no examples"

    @property
    def formula(self) -> Formula:
        """What a reader is told."""
        return FORMULAS[self.name]

    def function(self, gold: Any, predicted: Any) -> float:
        """Return the score of `predicted` [n] against `gold` [n]; nan where it is undefined."""
        terms = self.terms(gold, predicted)
        counts = np.ones((1, terms.shape[-1]))
        return float(self.aggregate(terms[None], counts)[0, 0])


@dataclass(frozen=True)
class Measured:
    """A score over n examples, or None and the reason."""

    value: float | None
    reason: str | None
    n: int


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        UserError: No metric is called so.
    """
    if name not in METRICS:
        raise UserError(f"There is no metric {name!r}. {nearest(name, METRICS)}")
    return METRICS[name]


def measure(name: str, gold: Any, predicted: Any) -> Measured:
    """Score `predicted` [n] against `gold` [n] with the metric `name`.

    Labels are integer indices for accuracy, f1 (positive class: index 1) and matthews; numbers for spearman
    and pearson; strings for exact_match, rouge_l and edit_similarity. For sari, `gold` is pairs of the text
    that was rewritten and its reference. For loss, `predicted` is [n, 2], each example's sum of
    log-probabilities in nats and its number of tokens, and `gold` is not read.

    Raises:
        UserError: There is no such metric, or it does not fit the task's labels.
        ValueError: `gold` and `predicted` differ in length, or are of another type than described.
    """
    metric, n = metric_named(name), len(predicted)
    if n == 0:
        return Measured(None, f"{name} is undefined: there are no examples.", 0)
    value = metric.function(gold, predicted)
    if np.isnan(value):
        return Measured(None, f"{name} is undefined: {metric.undefined}.", n)
    return Measured(value, None, n)


def majority(name: str, gold: Any) -> float | None:
    """Return the score of always answering the most frequent gold label (the first among equals).

    None where answers are graded rather than right or wrong, or where that score is undefined.
    """
    metric = metric_named(name)
    if metric.correct is None or len(gold) == 0:
        return None
    labels, counts = np.unique(np.asarray(gold), return_counts=True)
    return measure(name, gold, [labels[np.argmax(counts)].item()] * len(gold)).value


# --- Labels: right or wrong ------------------------------------------------------------------------------


def _labels(gold: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both as label indices of one shape [..., n]."""
    pair = np.asarray(gold), np.asarray(predicted)
    if any(array.dtype.kind not in "iu" for array in pair):
        raise ValueError("Labels must be integer indices.")
    gold, predicted = (array.astype(np.int64) for array in pair)
    if gold.shape != predicted.shape[-1:]:
        raise ValueError(f"{gold.shape} gold labels do not fit {predicted.shape} predicted ones.")
    return np.broadcast_to(gold, predicted.shape), predicted


def _same_label(gold: ArrayLike, predicted: ArrayLike) -> NDArray[np.bool_]:
    gold, predicted = _labels(gold, predicted)
    return np.equal(gold, predicted)


def _binary_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    """True positives, predicted positives, gold positives."""
    gold, predicted = _labels(gold, predicted)
    if not (np.isin(gold, (0, 1)).all() and np.isin(predicted, (0, 1)).all()):
        raise UserError(
            "The metric 'f1' is for two labels, the second being the positive one; choose another."
        )
    return np.stack([gold * predicted, predicted, gold], axis=-2).astype(np.float64)


def _f1(sums: Floats, _n: Floats) -> Floats:
    hits, predicted, gold = np.moveaxis(sums, -1, 0)
    return _ratio(2 * hits, predicted + gold)


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


# --- Text -------------------------------------------------------------------------------------------------


def _texts(gold: ArrayLike, predicted: ArrayLike) -> tuple[list[str], list[str], tuple[int, ...]]:
    """Return both as flat lists, paired, and the shape [..., n] that they had."""
    pair = np.asarray(gold, dtype=object), np.asarray(predicted, dtype=object)
    if not all(isinstance(text, str) for array in pair for text in array.flat):
        raise ValueError("Answers must be strings.")
    if pair[0].shape != pair[1].shape[-1:]:
        raise ValueError(f"{pair[0].shape} gold texts do not fit {pair[1].shape} predicted ones.")
    shape = pair[1].shape
    return list(np.broadcast_to(pair[0], shape).flat), list(pair[1].flat), shape


def _same_text(gold: ArrayLike, predicted: ArrayLike) -> NDArray[np.bool_]:
    golds, answers, shape = _texts(gold, predicted)
    same = [a.strip() == b.strip() for a, b in zip(golds, answers, strict=True)]
    return np.array(same, dtype=np.bool_).reshape(shape)


def _rouge_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    golds, answers, shape = _texts(gold, predicted)
    if golds and not any(re.search("[a-z0-9]", text, re.IGNORECASE) for text in golds):
        raise UserError("rouge_l reads only a-z and 0-9, and no gold text has any; choose another metric.")
    scores = [_rouge_l(a, b) for a, b in zip(golds, answers, strict=True)]
    return np.array(scores, dtype=np.float64).reshape(shape)[..., None, :]


@functools.lru_cache(maxsize=1 << 17)  # the score, its interval and its noise floor ask for the same pairs
def _rouge_l(gold: str, predicted: str) -> float:
    return float(_rouge_scorer().score(gold, predicted)["rougeL"].fmeasure)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import, and few tasks need it

    return RougeScorer(["rougeL"], use_stemmer=False)


@functools.lru_cache(maxsize=1 << 17)
def _similarity(gold: str, predicted: str) -> float:
    from rapidfuzz import fuzz

    return fuzz.ratio(gold, predicted) / 100 if gold and predicted else 0.0


def _similarity_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    golds, answers, shape = _texts(gold, predicted)
    scores = [_similarity(a, b) for a, b in zip(golds, answers, strict=True)]
    return np.array(scores, dtype=np.float64).reshape(shape)[..., None, :]


_sari = functools.lru_cache(maxsize=1 << 17)(sari)


def _sari_terms(gold: Any, predicted: ArrayLike) -> Floats:
    sources, references = ([pair[side] for pair in gold] for side in (0, 1))
    all_sources, answers, shape = _texts(sources, predicted)
    all_references = _texts(references, predicted)[0]
    triples = zip(all_sources, answers, all_references, strict=True)
    return np.array([_sari(*triple) for triple in triples], dtype=np.float64).reshape(shape)[..., None, :]


# --- Numbers ----------------------------------------------------------------------------------------------


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
    return np.clip(_ratio(covariance, scale), -1.0, 1.0)


def _loss_terms(_gold: Any, predicted: ArrayLike) -> Floats:
    """The sum of log-probabilities and the number of tokens."""
    predicted = np.asarray(predicted, dtype=np.float64)
    if predicted.shape[-1] != 2:
        raise ValueError("loss takes a (sum of log-probabilities, number of tokens) for each example.")
    return np.swapaxes(predicted, -1, -2)


def _log_likelihood(sums: Floats, _n: Floats) -> Floats:
    per_token = _ratio(sums[..., 0], sums[..., 1])
    return np.where(np.isfinite(per_token), per_token, np.nan)


# --- From terms to scores ---------------------------------------------------------------------------------


def _of_sums(value: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """Return the `aggregate` of a score that depends on sums of terms [b, s, k] and on n [b, 1] alone."""

    def aggregate(terms: Floats, counts: Floats) -> Floats:
        # einsum rather than a matrix product: its order of summation does not depend on threads.
        flat = np.ascontiguousarray(terms).reshape(-1, terms.shape[-1])
        sums = np.einsum("bn,mn->bm", counts, flat)
        return value(sums.reshape(len(counts), *terms.shape[:2]), counts.sum(axis=1, keepdims=True))

    return aggregate


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, nan where below is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


_mean = _of_sums(lambda sums, n: sums[..., 0] / n)


def _graded(
    correct: Callable[[ArrayLike, ArrayLike], NDArray[np.bool_]],
) -> Callable[[ArrayLike, ArrayLike], Floats]:
    return lambda gold, predicted: correct(gold, predicted)[..., None, :].astype(np.float64)


_CONSTANT = "the gold or the predicted numbers are constant or not finite"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", 1, True, _graded(_same_label), _mean, _same_label),
        Metric(
            "f1",
            1,
            True,
            _binary_terms,
            _of_sums(_f1),
            _same_label,
            undefined="neither the gold labels nor the predicted ones have a positive",
        ),
        Metric("matthews", 1, True, _confusion_terms, _of_sums(_matthews), _same_label),
        Metric("spearman", 1, True, _number_terms, _spearman, undefined=_CONSTANT),
        Metric("pearson", 1, True, _number_terms, _pearson, undefined=_CONSTANT),
        Metric("exact_match", 1, True, _graded(_same_text), _mean, _same_text),
        Metric("rouge_l", 1, True, _rouge_terms, _mean),
        Metric("sari", 1, True, _sari_terms, _mean),
        Metric("edit_similarity", 1, True, _similarity_terms, _mean),
        Metric(
            "loss",
            1,
            False,
            _loss_terms,
            _of_sums(_log_likelihood),
            undefined="no token is scored, or a log-probability is not finite",
        ),
    )
}
