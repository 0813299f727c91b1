"""Noise floors: the value of a maximum over noisy scores if nothing changed."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.matrix import FIGURES, MatrixRow, ScoreMatrix, UndefinedError
from forgetmenot.metrics.summary import comparable
from forgetmenot.metrics.task_metrics import metric_named

# The figures that take a maximum, and the first of the stages that it is taken over.
MAXIMA = {
    "forgetting": 1,
    "haque_forgetting_sum": 0,
    "haque_forgetting_mean": 0,
    "haque_learning_sum": 0,
    "haque_learning_mean": 0,
}


def noise_floor(
    stages: Sequence[MatrixRow],
    columns: Mapping[str, Answers],
    *,
    permutations: int = 200,
    seed: int = 0,
) -> dict[str, float | None]:
    """Return the value to expect of each figure that takes a maximum if no stage were better than another.

    Our definition: the answers that an example got after the stages concerned (1 to T for `forgetting`, 0 to
    T for Haque's) are permuted among those stages, for each example by itself; the figure is computed again;
    the floor is its mean over the permutations. Each example keeps its own mix of right and wrong, so no
    stage differs from another on average, and the maximum shows what it makes of noise alone.

    It is conservative where something did change: an answer that was truly learned or forgotten is permuted
    like a coin flip, so the noise is put too high rather than too low. It knows no noise but that of single
    examples: answers that flip together, or another training seed, can move a maximum further.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers, in the order of the matrix.
        permutations: How many.
        seed: Of the permutations; a task's depend on this and its name alone.

    Returns:
        The names of `MAXIMA` to numbers; None where the figure itself is. With two stages `forgetting` has
        but one row to take its maximum over, and its floor is 0 up to the error of the permutations.
    """
    metrics = {task: answers.metric for task, answers in columns.items()}
    stacks = {first: _permuted(stages, columns, first, permutations, seed) for first in set(MAXIMA.values())}

    def floor(name: str, first: int) -> float | None:
        try:
            return _number(FIGURES[name](comparable(stacks[first], metrics)).mean())
        except UndefinedError:  # the summary says why
            return None

    return {name: floor(name, first) for name, first in MAXIMA.items()}


def _permuted(
    stages: Sequence[MatrixRow], columns: Mapping[str, Answers], first: int, permutations: int, seed: int
) -> ScoreMatrix:
    """Return a stack of matrices, the answers to each example permuted among the stages from `first` on."""
    scores = np.full((permutations, len(stages), len(columns)), np.nan)
    for column, (task, answers) in enumerate(columns.items()):
        rows = answers.present
        if not rows:
            continue
        metric, terms = metric_named(answers.metric), answers.terms()
        generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
        moving = [place for place, row in enumerate(rows) if row >= first]
        once = np.ones((1, terms.shape[-1]))
        for permutation in range(permutations):
            shuffled = terms.copy()
            order = generator.random((len(moving), 1, terms.shape[-1])).argsort(axis=0)
            shuffled[moving] = np.take_along_axis(terms[moving], order, axis=0)
            scores[permutation, rows, column] = metric.aggregate(shuffled, once)[0]
    return ScoreMatrix(tuple(columns), tuple(stages), scores)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
