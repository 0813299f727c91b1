"""The protocol of a task metric: what it reads, what a score means, and how it is computed and tested.

A metric is two small functions. `terms` says what each example contributes: a few numbers that depend on
that example alone. `aggregate` makes a score of the terms and of how often each example counts. Counting
every example once is the plain score; counting it as often as it was drawn is a bootstrap replicate; and
whatever is permuted or resampled, `terms` (where ROUGE is slow) runs only once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Reads = Literal["labels", "numbers", "texts", "rewrites", "likelihoods"]
"""What `gold` and `predicted` are; see `Metric.reads`."""


class Formula(NamedTuple):
    """How a number is computed, where that comes from, and what it says in one sentence."""

    title: str
    formula: str
    source: str
    meaning: str


@dataclass(frozen=True)
class Metric:
    """A way to score answers. The score matrix holds it so that higher is better in every one.

    Attributes:
        name: As a task names it.
        version: Goes up whenever the same answers would get another score.
        formula: What a reader is told.
        reads: What it is computed from. `labels`: indices into the task's labels, `NO_LABEL` for an answer
            that names none. `numbers`. `texts`. `rewrites`: texts, the gold ones as pairs of the text that
            was rewritten and its reference. `likelihoods`: of each gold answer the sum of log-probabilities
            in nats and the number of tokens, [n, 2]; nothing is generated, and `gold` is not read.
        terms: (gold [n], predicted [..., n]) to what each example contributes, [..., k, n].
        aggregate: (terms [s, k, n], counts [b, n]) to scores [b, s]. Exact to the last bit whatever the
            number of threads.
        kinds: The kinds of a user's own task that may be scored by it.
        unit: What a score counts, for the axis of a figure.
        direction: Whether people write it so that `higher` or so that `lower` is better; `shown` turns it.
        bounded: Whether scores have a fixed range, so that averaging it with other metrics makes sense.
        chance: What answering without looking scores: that of the `majority` label, or a number that is the
            same for all data; None where there is no such answer.
        test: How two answers to the same examples are compared: by McNemar's exact test, for the mean of
            answers that are right or wrong, or by the paired `bootstrap`.
        correct: (gold [n], predicted [..., n]) to right or wrong, [..., n]; None where an answer is graded.
        label_count: How many labels it is for; None for any number.
        margin: How small a drop counts as none where nobody set a margin, in the unit of the score. Ours.
        undefined: Why there may be no score (`aggregate` gives nan), as the end of a sentence.
    """

    name: str
    version: int
    formula: Formula
    reads: Reads
    terms: Callable[[Any, Any], Floats]
    aggregate: Callable[[Floats, Floats], Floats]
    kinds: tuple[str, ...] = ()
    unit: str = "score"
    direction: Literal["higher", "lower"] = "higher"
    bounded: bool = True
    chance: Literal["majority"] | float | None = None
    test: Literal["exact McNemar", "paired bootstrap"] = "paired bootstrap"
    correct: Callable[[Any, Any], NDArray[np.bool_]] | None = None
    label_count: int | None = None
    margin: float = 0.03
    undefined: str = "there are no examples"

    def function(self, gold: Any, predicted: Any) -> float:
        """Return the score of `predicted` [n] against `gold` [n]; nan where it is undefined."""
        terms = self.terms(gold, predicted)
        counts = np.ones((1, terms.shape[-1]))
        return float(self.aggregate(terms[None], counts)[0, 0])

    def chance_level(self, gold: Any) -> float | None:
        """Return the score of answering without looking; None where that has no meaning or no score.

        The majority label is the most frequent one in `gold`, the first among equals.
        """
        if self.chance is None or len(gold) == 0:
            return None
        if self.chance != "majority":
            return self.chance
        labels, counts = np.unique(np.asarray(gold), return_counts=True)
        value = self.function(gold, [labels[np.argmax(counts)].item()] * len(gold))
        return None if np.isnan(value) else value

    def shown(self, value: float) -> float:
        """Return a score of the matrix as people write it: a loss is positive, and lower is better."""
        return -value if self.direction == "lower" else value


def of_sums(value: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """Return the `aggregate` of a score that depends on sums of terms [b, s, k] and on n [b, 1] alone."""

    def aggregate(terms: Floats, counts: Floats) -> Floats:
        # einsum rather than a matrix product: its order of summation does not depend on threads.
        flat = np.ascontiguousarray(terms).reshape(-1, terms.shape[-1])
        sums = np.einsum("bn,mn->bm", counts, flat)
        return value(sums.reshape(len(counts), *terms.shape[:2]), counts.sum(axis=1, keepdims=True))

    return aggregate


def ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, nan where below is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


mean = of_sums(lambda sums, n: sums[..., 0] / n)
"""The `aggregate` of a mean over examples."""
