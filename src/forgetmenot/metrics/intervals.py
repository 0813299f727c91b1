"""How sure the numbers are: bootstrap intervals, and what a maximum shows where nothing changed."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetmenot.metrics.matrix import (
    FIGURES,
    Floats,
    Row,
    ScoreMatrix,
    UndefinedError,
    haque_forgetting,
    haque_learning,
)
from forgetmenot.metrics.metric import Metric
from forgetmenot.metrics.summary import comparable
from forgetmenot.metrics.task_metrics import metric_named

Interval = tuple[float, float]

# The figures that take a maximum, and the first of the stages that it is taken over.
MAXIMA = {
    "forgetting": 1,
    "haque_forgetting_sum": 0,
    "haque_forgetting_mean": 0,
    "haque_learning_sum": 0,
    "haque_learning_mean": 0,
}

_CHUNK = 1 << 21  # counts held at once: 16 MiB


@dataclass(frozen=True, eq=False)
class Answers:
    """One column of the score matrix before scoring.

    Attributes:
        metric: Its name.
        gold: What was right, [n], as `measure` takes it.
        predicted: What the model answered after each stage, as `measure` takes it, to the same examples in
            the same order; None for a stage whose cell is missing.
    """

    metric: str
    gold: Any
    predicted: Sequence[Any]

    @property
    def present(self) -> list[int]:
        """The stages that have answers."""
        return [i for i, answers in enumerate(self.predicted) if answers is not None and len(answers)]

    def terms(self) -> Floats:
        """Return the metric's terms of the answers that there are, [stages, k, n]."""
        return metric_named(self.metric).terms(self.gold, [self.predicted[stage] for stage in self.present])


@dataclass(frozen=True)
class Intervals:
    """Intervals of every cell and every figure; None where a number is missing or undefined in a resample.

    Attributes:
        matrix: [stages][tasks].
        summary: The names of `FIGURES`; "haque_forgetting.TASK" and "haque_learning.TASK" beside them.
        level: The share of resamples that lie within.
        resamples: How many there were.
    """

    matrix: list[list[Interval | None]]
    summary: dict[str, Interval | None]
    level: float
    resamples: int

    def to_json(self) -> dict[str, Any]:
        """Return the `intervals` of results.json."""
        return {
            "matrix": [[list(cell) if cell else None for cell in row] for row in self.matrix],
            "summary": {name: list(pair) if pair else None for name, pair in self.summary.items()},
            "level": self.level,
            "resamples": self.resamples,
        }


def bootstrap(
    stages: Sequence[Row],
    columns: Mapping[str, Answers],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

    One resample draws the n examples of a task with replacement and scores the same draw after every stage,
    so that what two stages have in common cancels in their difference; tasks are drawn independently. The
    intervals tell how far the numbers would move with another sample of examples, not with another training
    seed. The interval of a figure that takes a maximum shares its bias: see `noise_floor`.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers, in the order of the matrix.
        resamples: How many.
        level: The share of resamples within an interval.
        seed: Of the draws; a task's draws depend on this, its name and n alone.
    """
    stack = replicates(stages, columns, resamples=resamples, seed=seed)
    kept = comparable(stack, {task: answers.metric for task, answers in columns.items()})

    def interval(figure: Callable[..., Floats], *task: str) -> Interval | None:
        try:
            return percentiles(figure(kept, *task), level)
        except UndefinedError:  # the summary says why
            return None

    summary = {name: interval(figure) for name, figure in FIGURES.items()}
    for task in kept.tasks:
        summary[f"haque_forgetting.{task}"] = interval(haque_forgetting, task)
        summary[f"haque_learning.{task}"] = interval(haque_learning, task)
    cells = [[percentiles(column, level) for column in row] for row in stack.values.transpose(1, 2, 0)]
    return Intervals(cells, summary, level, resamples)


def replicates(
    stages: Sequence[Row], columns: Mapping[str, Answers], *, resamples: int = 1000, seed: int = 0
) -> ScoreMatrix:
    """Return the score matrix of each bootstrap draw of the examples, a stack [resamples, stages, tasks].

    Draw b of a task is the same for every run over the same examples, so that what two runs have in common
    cancels in the difference of their stacks.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers, in the order of the matrix.
        resamples: How many.
        seed: Of the draws; a task's draws depend on this, its name and n alone.
    """
    scores = np.full((resamples, len(stages), len(columns)), np.nan)
    for column, (task, answers) in enumerate(columns.items()):
        if answers.present:
            generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
            scores[:, answers.present, column] = resample(
                metric_named(answers.metric), answers.terms(), resamples, generator
            )
    return ScoreMatrix(tuple(columns), tuple(stages), scores)


def noise_floor(
    stages: Sequence[Row],
    columns: Mapping[str, Answers],
    *,
    permutations: int = 200,
    seed: int = 0,
) -> dict[str, float | None]:
    """Return the value to expect of each figure that takes a maximum if no stage were better than another.

    Our definition: the answers that an example got after the stages concerned (1 to T for `forgetting`, 0 to
    T for Haque's) are permuted among those stages, for each example by itself; the figure is computed anew;
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
    stages: Sequence[Row], columns: Mapping[str, Answers], first: int, permutations: int, seed: int
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


def resample(metric: Metric, terms: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Return the scores [resamples, s] of bootstrap draws of the examples of `terms` [s, k, n]."""
    return np.concatenate(
        [metric.aggregate(terms, counts) for counts in _draws(terms.shape[-1], resamples, generator)]
    )


def _draws(n: int, resamples: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each of n examples was drawn, [b, n], until there were `resamples` draws."""
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        b = min(size, resamples - start)
        drawn = generator.integers(n, size=(b, n)) + n * np.arange(b)[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)


def percentiles(scores: Floats, level: float) -> Interval | None:
    """Return the interval that holds the middle `level` of the scores, None where one is undefined."""
    if np.isnan(scores).any():
        return None
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
