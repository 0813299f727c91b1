"""Metrics of generated text: equal to the gold text, or like it."""

import functools
import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats, Formula, Metric, mean
from forgetmenot.metrics.sari import sari


def _texts(gold: ArrayLike, predicted: ArrayLike) -> tuple[list[str], list[str], tuple[int, ...]]:
    """Return both as flat lists, paired, and the shape [..., n] that they had."""
    pair = np.asarray(gold, dtype=object), np.asarray(predicted, dtype=object)
    if not all(isinstance(text, str) for array in pair for text in array.flat):
        raise ValueError("Answers must be strings.")
    if pair[0].shape != pair[1].shape[-1:]:
        raise ValueError(f"{pair[0].shape} gold texts do not fit {pair[1].shape} predicted ones.")
    shape = pair[1].shape
    return list(np.broadcast_to(pair[0], shape).flat), list(pair[1].flat), shape


def _same_text(gold: Any, predicted: Any) -> NDArray[np.bool_]:
    golds, answers, shape = _texts(gold, predicted)
    same = [a.strip() == b.strip() for a, b in zip(golds, answers, strict=True)]
    return np.array(same, dtype=np.bool_).reshape(shape)


def _same_terms(gold: Any, predicted: Any) -> Floats:
    return _same_text(gold, predicted)[..., None, :].astype(np.float64)


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


EXACT_MATCH = Metric(
    "exact_match",
    1,
    Formula(
        "Exact match",
        "answers equal to the gold text, blanks around both aside / n",
        "SQuAD's exact match without its normalisation",
        "The share of answers that are the gold text letter by letter.",
    ),
    "texts",
    _same_terms,
    mean,
    kinds=("answer", "messages"),
    unit="share of examples",
    chance="majority",
    test="exact McNemar",
    correct=_same_text,
)

ROUGE_L = Metric(
    "rouge_l",
    1,
    Formula(
        "ROUGE-L",
        "mean over examples of F = 2PR/(P+R), P and R being the longest common subsequence over the words "
        "predicted and gold; words are runs of a-z and 0-9, not stemmed",
        "Lin 2004; the rouge-score package",
        "How much of the gold text's words the answer has in the same order.",
    ),
    "texts",
    _rouge_terms,
    mean,
    kinds=("answer", "messages"),
)

SARI = Metric(
    "sari",
    1,
    Formula(
        "SARI",
        "mean over examples and n = 1…4 of (F_keep + P_delete + F_add) / 3, over lower-case n-grams of the "
        "text that was rewritten, the answer and the gold text",
        "Xu et al. 2016, TACL 4; as Hugging Face's metric and TRACE, arXiv 2310.06762, read it",
        "How well a text was made simpler: what was kept, left out and added, compared with the gold text.",
    ),
    "rewrites",
    _sari_terms,
    mean,
    kinds=("answer",),
)

EDIT_SIMILARITY = Metric(
    "edit_similarity",
    1,
    Formula(
        "Edit similarity",
        "mean over examples of 2·M / (characters of both texts), M being the longest common subsequence of "
        "their characters; 0 where one of them is empty",
        "rapidfuzz fuzz.ratio / 100; TRACE, arXiv 2310.06762",
        "How much of two texts' characters they have in common in the same order.",
    ),
    "texts",
    _similarity_terms,
    mean,
    kinds=("answer", "messages"),
)
