"""Semantic textual similarity: Spearman's correlation of cosines with what people said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.senteval import Pairs
from forgetmenot.embedding.vectors import embed
from forgetmenot.metrics.correlation import spearman
from forgetmenot.metrics.resampling import Interval, percentiles

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

LEVEL = 0.95
RESAMPLES = 1000
SEED = 20230731
NOT_FINITE = "the model's numbers are not finite (nan or infinite)"
CONSTANT = "all cosines, or all gold scores, are equal"


@dataclass(frozen=True)
class Similarity:
    """What a set's cosines are worth.

    Attributes:
        name: The set.
        value: Spearman's correlation over all pairs of the set (SentEval's `all`); None with a reason.
        interval: A percentile bootstrap's over pairs, of 95 %; None where a resample is undefined.
        n: Pairs.
        parts: The correlation within each of its files, where there are several.
        reason: Why there is no value.
    """

    name: str
    value: float | None
    interval: Interval | None
    n: int
    parts: dict[str, float | None]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def cosines_of(
    learner: Learner,
    pairs: Sequence[Pairs],
    settings: EmbeddingSettings,
    advance: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """The cosine of each pair of each set, fp64; no sentence is computed twice."""
    texts = list(dict.fromkeys(text for one in pairs for text in (*one.first, *one.second)))
    vectors, place = embed(learner, texts, settings, advance), {text: k for k, text in enumerate(texts)}
    return [
        cosines(vectors[[place[text] for text in one.first]], vectors[[place[text] for text in one.second]])
        for one in pairs
    ]


def cosines(one: Tensor, other: Tensor) -> np.ndarray:
    """The cosine of the angle between vectors of the same rows, fp64 [rows]."""
    import torch

    found: np.ndarray = torch.nn.functional.cosine_similarity(one.double(), other.double()).numpy()
    return found


def similarity(pairs: Pairs, found: np.ndarray, resamples: int = RESAMPLES) -> Similarity:
    """Hold cosines [pairs] against the gold scores; the interval is from so many resamples, none from 0."""
    names = list(dict.fromkeys(pairs.parts.tolist()))
    if not np.isfinite(found).all():
        return Similarity(pairs.name, None, None, len(found), {}, NOT_FINITE)
    value = spearman(found, pairs.gold)
    if value is None:
        return Similarity(pairs.name, None, None, len(found), {}, CONSTANT)
    parts = {name: spearman(found[pairs.parts == name], pairs.gold[pairs.parts == name]) for name in names}
    interval = _interval(found, pairs.gold, resamples)
    return Similarity(pairs.name, value, interval, len(found), parts if len(names) > 1 else {})


def _interval(found: np.ndarray, gold: np.ndarray, resamples: int) -> Interval | None:
    if resamples == 0:
        return None
    draw = np.random.default_rng(SEED)
    samples = (draw.integers(len(gold), size=len(gold)) for _ in range(resamples))
    values = [spearman(found[rows], gold[rows]) for rows in samples]
    return percentiles(np.array(values, dtype=np.float64), LEVEL)
