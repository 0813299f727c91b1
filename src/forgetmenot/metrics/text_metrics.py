"""Metrics of generated text: equal to the gold text, or like it."""

import functools
import re
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    return _all_rouge(gold, predicted, unicode=False)


def _rouge_unicode_terms(gold: ArrayLike, predicted: ArrayLike) -> Floats:
    return _all_rouge(gold, predicted, unicode=True)


def _all_rouge(gold: ArrayLike, predicted: ArrayLike, *, unicode: bool) -> Floats:
    """Each answer's score; nan for all of them where a gold text has no word, which no answer can match."""
    golds, answers, shape = _texts(gold, predicted)
    scores = [_rouge_l(a, b, unicode=unicode) for a, b in zip(golds, answers, strict=True)]
    return np.array(scores, dtype=np.float64).reshape(shape)[..., None, :]


@functools.lru_cache(maxsize=1 << 17)  # the score, its interval and its noise floor ask for the same pairs
def _rouge_l(gold: str, predicted: str, *, unicode: bool) -> float:
    has_a_word = unicode_words(gold) if unicode else re.search("[a-z0-9]", gold, re.IGNORECASE)
    if not has_a_word:
        return float("nan")
    return float(_rouge_scorer(unicode=unicode).score(gold, predicted)["rougeL"].fmeasure)


@functools.cache
def _rouge_scorer(*, unicode: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import, and few tasks need it

    return RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_UnicodeWords() if unicode else None)


class _UnicodeWords:
    """A tokenizer for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """Words as `unicode_words` reads them."""
        return unicode_words(text)


# Scripts that put no blanks between words: Han, kana, Thai, Lao, Myanmar and Khmer.
_ALONE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_STANDS_ALONE = re.compile(f"[{_ALONE}]")


def unicode_words(text: str) -> list[str]:
    """The words of a text of any script, in lower case (NFKC): runs of letters, marks and digits.

    Of scripts that put no blanks between words every character is a word of its own.
    """
    words: list[str] = []
    run = ""
    for character in unicodedata.normalize("NFKC", text).lower():
        counts = unicodedata.category(character)[0] in "LMN"
        alone = counts and _STANDS_ALONE.match(character) is not None
        if run and (alone or not counts):
            words.append(run)
            run = ""
        if alone:
            words.append(character)
        elif counts:
            run += character
    return [*words, run] if run else words


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
        "answers equal to the gold text / n; blanks at the ends of either do not count",
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
    undefined="a gold text has no word of a-z and 0-9; rouge_l_unicode reads every script",
)

ROUGE_L_UNICODE = Metric(
    "rouge_l_unicode",
    1,
    Formula(
        "ROUGE-L of every script",
        "as ROUGE-L, over words of any script: lower-case runs of letters, marks and digits (NFKC); of "
        "scripts without blanks between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) each character "
        "is a word",
        "Lin 2004; the rouge-score package with a tokenizer of ours",
        "How much of the gold text's words the answer has in the same order.",
    ),
    "texts",
    _rouge_unicode_terms,
    mean,
    kinds=("answer", "messages"),
    undefined="a gold text has no letter and no digit",
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
        "rapidfuzz fuzz.ratio / 100; TRACE, arXiv 2310.06762; SELF-GUIDE's code calls it ROUGE-L "
        "(arXiv 2407.12874)",
        "How much of two texts' characters they have in common in the same order.",
    ),
    "texts",
    _similarity_terms,
    mean,
    kinds=("answer", "messages"),
)
