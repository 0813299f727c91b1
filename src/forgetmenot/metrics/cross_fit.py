"""Figures that take a maximum, cross-fitted: the stage chosen on one half of the examples, read on the other.

A maximum over noisy scores lies above the maximum of the true ones, so its value is too high and the
bootstrap interval of it does not cover. Here the examples of a task are divided in two halves, once and for
all; the stage of the maximum is found on the one and the drop from it read on the other, both ways, and the
two are averaged. What was chosen by chance on one half is read without that chance on the other. Where
several stages are about equally high the true drop from the one that is chosen may lie a little under the
largest one. (Sample splitting for a maximum: Cox 1975, Biometrika 62, 441-444; both ways as in Chernozhukov
et al. 2018, Econometrics Journal 21, C1-C68.)
"""

from collections.abc import Callable, Mapping

import numpy as np

from forgetmenot.metrics.matrix import ScoreMatrix, learned, learned_before_last, learned_in_sequence
from forgetmenot.metrics.metric import Floats

Pair = tuple[ScoreMatrix, ScoreMatrix]
"""The scores on either half of the examples."""


def _drop(pair: Pair, task: str, rows: range, reference: int) -> Floats:
    """Over some rows the highest score less that of the reference row, cross-fitted."""
    scores = [half.cells((row, task) for row in rows) for half in pair]
    ends = [half.cells([(reference, task)])[..., 0] for half in pair]
    found = []
    for one, other in ((0, 1), (1, 0)):
        chosen = scores[one].argmax(axis=-1)[..., None]
        found.append(np.take_along_axis(scores[other], chosen, axis=-1)[..., 0] - ends[other])
    return np.asarray((found[0] + found[1]) / 2)


def forgetting(pair: Pair) -> Floats:
    """Chaudhry's F over the tasks learned before the last stage; see `matrix.forgetting`."""
    last = len(pair[0].stages) - 1
    tasks = learned_before_last(pair[0])
    return np.asarray(np.mean([_drop(pair, task, range(1, last), last) for task in tasks], axis=0))


def haque_forgetting(pair: Pair, task: str) -> Floats:
    """Haque's forgetting of a task; see `matrix.haque_forgetting`."""
    learned_in_sequence(pair[0])
    last = len(pair[0].stages) - 1
    return _drop(pair, task, range(last + 1), last)


def haque_learning(pair: Pair, task: str) -> Floats:
    """Haque's learning of a task; see `matrix.haque_learning`."""
    learned_in_sequence(pair[0])
    return _drop(pair, task, range(len(pair[0].stages)), 0)


def _mean(one: Callable[[Pair, str], Floats]) -> Callable[[Pair], Floats]:
    return lambda pair: np.asarray(np.mean([one(pair, task) for task in learned(pair[0])], axis=0))


def _sum(one: Callable[[Pair, str], Floats]) -> Callable[[Pair], Floats]:
    return lambda pair: np.asarray(np.sum([one(pair, task) for task in learned(pair[0])], axis=0))


CROSS_FITTED: Mapping[str, Callable[[Pair], Floats]] = {
    "forgetting": forgetting,
    "haque_forgetting_sum": _sum(haque_forgetting),
    "haque_forgetting_mean": _mean(haque_forgetting),
    "haque_learning_sum": _sum(haque_learning),
    "haque_learning_mean": _mean(haque_learning),
}
"""The figures of `matrix.FIGURES` that take a maximum."""
