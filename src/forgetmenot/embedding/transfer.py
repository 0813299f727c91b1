"""Transfer: what a linear classifier learns from frozen vectors, as SentEval measures it.

Conneau and Kiela 2018 (arXiv 1803.05449): logistic regression on the vectors u of sentences; of pairs on
|u − v| and u·v together. The penalty is chosen by cross-validation within the training rows. SentEval trains
by Adam with early stopping and tries weight decays of 1e-5 to 1e-2; here the loss is convex and minimized to
its end by L-BFGS, for the same penalties. Scored are GLUE's splits as forgetmenot has them, since the test
labels of SST-2 are in SentEval's own files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.similarity import NOT_FINITE
from forgetmenot.embedding.vectors import embed
from forgetmenot.errors import UserError
from forgetmenot.metrics.resampling import Interval, wilson
from forgetmenot.tasks import Example, load_tasks

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

Floats = NDArray[np.float64]

FIELDS = {"sst2": ("sentence",), "mrpc": ("sentence1", "sentence2")}
"""The tasks, and the fields that are embedded."""
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
FOLDS = 5
"""Of the choice of a penalty; SentEval's full mode has 10."""


@dataclass(frozen=True)
class TransferSet:
    """The rows of one task.

    Attributes:
        name: One of FIELDS.
        texts: The sentences of each row, training rows first [rows][1 or 2].
        labels: 0 or 1 [rows].
        trained: How many of the rows are trained on.
    """

    name: str
    texts: list[tuple[str, ...]]
    labels: NDArray[np.int64]
    trained: int


@dataclass(frozen=True)
class Transfer:
    """How well a task's labels can be read off the vectors.

    Attributes:
        name: The task.
        value: Accuracy on the rows that were not trained on; None with a reason.
        interval: Wilson's, of 95 %; None where there is no value.
        n: How many these are.
        trained: Training rows.
        penalty: What was chosen; None where there is no value.
        reason: Why there is no value.
    """

    name: str
    value: float | None
    interval: Interval | None
    n: int
    trained: int
    penalty: float | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def read_transfer(name: str, data_dir: Path | None, limit: int | None = None) -> TransferSet:
    """Read a task: GLUE's train and dev splits.

    Args:
        name: One of FIELDS.
        data_dir: As a run's.
        limit: Of each split, evenly spaced.

    Raises:
        UserError: The files are not there, or too few rows of a label are left.
    """
    (task,) = load_tasks([name], data_dir)
    train, score = (_spaced(rows, limit) for rows in ([*task.train, *task.select], task.score))
    texts = [tuple(str(row.fields[key]) for key in FIELDS[name]) for row in (*train, *score)]
    labels = np.array([task.labels.index(str(row.label)) for row in (*train, *score)])
    if min(np.bincount(labels[: len(train)], minlength=2)) < FOLDS:
        raise UserError(f"{name}: {FOLDS} training rows of each label are needed; raise the limit.")
    return TransferSet(name, texts, labels, len(train))


def _spaced(rows: Sequence[Example], limit: int | None) -> list[Example]:
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[k] for k in np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]


def transfer(
    learner: Learner,
    rows: TransferSet,
    settings: EmbeddingSettings,
    advance: Callable[[int], None] | None = None,
) -> Transfer:
    """Embed a task's sentences, train the classifier on them, and score it."""
    vectors = [
        embed(learner, [row[k] for row in rows.texts], settings, advance).double().numpy()
        for k in range(len(rows.texts[0]))
    ]
    return classify(rows, features(*vectors))


def features(one: Floats, *others: Floats) -> Floats:
    """Vectors [rows, width] as they are; of pairs |u − v| beside u·v [rows, 2 width]."""
    return np.concatenate([part for v in others for part in (np.abs(one - v), one * v)] or [one], axis=1)


def classify(rows: TransferSet, x: Floats) -> Transfer:
    """Train on the first rows of features [rows, width], and score on the rest."""
    n = len(x) - rows.trained
    if not np.isfinite(x).all():
        return Transfer(rows.name, None, None, n, rows.trained, None, NOT_FINITE)
    train, labels = x[: rows.trained], rows.labels[: rows.trained]
    fold = np.empty(rows.trained, dtype=np.int64)
    for label in (0, 1):  # each fold has as many of each label as the next
        of_label = np.flatnonzero(labels == label)
        fold[of_label] = np.arange(len(of_label)) % FOLDS
    right = {
        penalty: sum(
            _right(
                logistic_regression(train[fold != k], labels[fold != k], penalty), train, labels, fold == k
            )
            for k in range(FOLDS)
        )
        for penalty in PENALTIES
    }
    penalty = max(PENALTIES, key=lambda one: right[one])
    held_out = np.arange(len(x)) >= rows.trained
    found = _right(logistic_regression(train, labels, penalty), x, rows.labels, held_out)
    return Transfer(rows.name, found / n, wilson(found, n), n, rows.trained, penalty)


def _right(weights: Floats, x: Floats, labels: NDArray[np.int64], chosen: NDArray[np.bool_]) -> int:
    return int(((x[chosen] @ weights[:-1] + weights[-1] > 0) == labels[chosen]).sum())


def logistic_regression(x: Floats, labels: NDArray[np.int64], penalty: float) -> Floats:
    """The weights [width + 1], the bias last, that minimize mean log loss + penalty/2 · ‖w‖².

    The bias is not penalized. The features are scaled within by one number, their root mean square, which
    changes how fast the minimum is found and not where it lies.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    scale = float(np.sqrt((x * x).mean())) or 1.0
    x, sign = x / scale, 2.0 * labels - 1.0

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ weights[:-1] + weights[-1])
        slope = -sign * expit(-margin) / len(x)
        shrink = penalty / scale**2 * weights[:-1]
        value = np.logaddexp(0, -margin).mean() + shrink @ weights[:-1] / 2
        return float(value), np.append(x.T @ slope + shrink, slope.sum())

    start = np.zeros(x.shape[1] + 1)
    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-12, "gtol": 1e-7}
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return np.append(found[:-1] / scale, found[-1])
