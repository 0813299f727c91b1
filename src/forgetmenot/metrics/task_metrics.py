"""The table of task metrics: those of this package, and those that others give through entry points."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from forgetmenot.errors import UserError, nearest
from forgetmenot.metrics.label_metrics import ACCURACY, F1, MATTHEWS, PREFERENCE
from forgetmenot.metrics.metric import Metric
from forgetmenot.metrics.number_metrics import LOSS, PEARSON, SPEARMAN
from forgetmenot.metrics.text_metrics import EDIT_SIMILARITY, EXACT_MATCH, ROUGE_L, ROUGE_L_UNICODE, SARI

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ACCURACY,
        PREFERENCE,
        F1,
        MATTHEWS,
        SPEARMAN,
        PEARSON,
        EXACT_MATCH,
        ROUGE_L,
        ROUGE_L_UNICODE,
        SARI,
        EDIT_SIMILARITY,
        LOSS,
    )
}
ENTRY_POINTS = "forgetmenot.metrics"


@dataclass(frozen=True)
class Measured:
    """A score over n examples, or None and the reason."""

    value: float | None
    reason: str | None
    n: int


def known_metrics() -> Mapping[str, Metric]:
    """The metrics of this package and those of entry points, each a `Metric`, by name."""
    return {**_others(), **METRICS}


@functools.cache
def _others() -> dict[str, Metric]:
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        UserError: No metric is called so.
    """
    if name in METRICS:
        return METRICS[name]
    known = known_metrics()
    if name not in known:
        raise UserError(f"There is no metric {name!r}. {nearest(name, known)}")
    return known[name]


def measure(name: str, gold: Any, predicted: Any) -> Measured:
    """Score `predicted` [n] against `gold` [n] with the metric `name`; `Metric.reads` says what they are.

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
