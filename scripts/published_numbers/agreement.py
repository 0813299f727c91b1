"""How nearly the answers of two models to the same questions agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Two models' answers, compared.

    Attributes:
        questions: How many.
        likelihoods: How many log-likelihoods.
        nats: The largest difference of a log-likelihood.
        relative: The largest difference of one in parts of the log-likelihood.
        metrics: The largest difference of a metric of one question.
        texts: How many written answers.
        equal_texts: How many of them are equal.
    """

    questions: int
    likelihoods: int
    nats: float
    relative: float
    metrics: float
    texts: int
    equal_texts: int


def agreement(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Agreement:
    """Compare two lists of answers as `measure` records them.

    Raises:
        ValueError: They are not answers to the same questions.
    """
    ours, theirs = (sorted(side, key=lambda one: str(one["place"])) for side in (ours, theirs))
    if [(one["place"], one["asked"]) for one in ours] != [(one["place"], one["asked"]) for one in theirs]:
        raise ValueError("The two sides were not asked the same questions.")
    metrics = [
        abs(value - other["metrics"][name])
        for one, other in zip(ours, theirs, strict=True)
        for name, value in one["metrics"].items()
    ]
    once = {one["place"].rpartition("/")[0]: pair for pair in zip(ours, theirs, strict=True) for one in pair}
    replies = [
        pair for one, other in once.values() for pair in zip(one["replies"], other["replies"], strict=True)
    ]
    numbers = [(a, b) for a, b in replies if not isinstance(a, str)]
    texts = [(a, b) for a, b in replies if isinstance(a, str)]
    return Agreement(
        questions=len(once),
        likelihoods=len(numbers),
        nats=max((abs(a - b) for a, b in numbers), default=0.0),
        relative=max((abs(a - b) / max(abs(b), 1e-9) for a, b in numbers), default=0.0),
        metrics=max(metrics, default=0.0),
        texts=len(texts),
        equal_texts=sum(a == b for a, b in texts),
    )
