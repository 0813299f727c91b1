"""SARI: how well a text was rewritten, by what was kept, deleted and added (Xu et al. 2016, TACL 4).

The reading is that of the Hugging Face metric, which TRACE uses: lower case, mteval-v13a tokens, n-grams up
to four; recall of what is kept counts n-grams as often as they occur, deletion is scored by its precision
alone, 0/0 is 1, and an empty text is one empty token.
"""

import re
from collections import Counter

ORDERS = 4

_ESCAPES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
_APART = [
    (
        re.compile(r"([\x20-\x26\x28-\x2b\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])"),
        r" \1 ",
    ),  # all ASCII marks but ',-.
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # a point or comma that no digit stands before
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),  # or behind
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
]


def sari(source: str, predicted: str, gold: str) -> float:
    """How well `predicted` rewrites `source`, compared with one reference; from 0 to 1."""
    texts = [tokens_13a(text.lower()) or [""] for text in (source, predicted, gold)]
    parts = [_parts(*(_ngrams(tokens, n) for tokens in texts)) for n in range(1, ORDERS + 1)]
    return sum(map(sum, parts)) / (3 * ORDERS)


def tokens_13a(text: str) -> list[str]:
    """Cut a line into the tokens of mteval-v13a, BLEU's reference script."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for escape, mark in _ESCAPES.items():
        text = text.replace(escape, mark)
    text = f" {text} "
    for pattern, spaced in _APART:
        text = pattern.sub(spaced, text)
    return text.split()


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1))


def _parts(
    source: Counter[tuple[str, ...]], predicted: Counter[tuple[str, ...]], gold: Counter[tuple[str, ...]]
) -> tuple[float, float, float]:
    """The scores of one order: F of what is kept, precision of what is deleted, F of what is added."""
    kept, to_keep = source & predicted, source & gold
    good = kept & gold
    keep = _f(
        _mean([good[gram] / count for gram, count in kept.items()]),
        _ratio(good.total(), to_keep.total()),
    )
    deleted = source - predicted
    rightly = deleted - gold
    delete = _mean([rightly[gram] / count for gram, count in deleted.items()])
    added, to_add = predicted.keys() - source.keys(), gold.keys() - source.keys()
    hits = len(added & gold.keys())
    return keep, delete, _f(_ratio(hits, len(added)), _ratio(hits, len(to_add)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 1.0


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
