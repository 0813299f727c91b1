"""Intervals of every cell and figure of a score matrix: how sure the numbers are."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetmenot.metrics import cross_fit
from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.matrix import (
    FIGURES,
    MatrixRow,
    ScoreMatrix,
    UndefinedError,
    haque_forgetting,
    haque_learning,
)
from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.noise_floor import MAXIMA
from forgetmenot.metrics.resampling import Interval, percentiles, resample, wilson
from forgetmenot.metrics.summary import comparable
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True)
class Intervals:
    """Intervals of every cell and every figure; None where a number is missing or undefined in a resample.

    Attributes:
        matrix: [stages][tasks].
        summary: The names of `FIGURES`; None for those of `MAXIMA`, whose bootstrap does not cover.
        cross_fitted: The names of `MAXIMA`, and "haque_forgetting.TASK" and "haque_learning.TASK" beside
            them, to the cross-fitted value (`cross_fit`) and its interval.
        level: The confidence.
        resamples: How many there were.
    """

    matrix: list[list[Interval | None]]
    summary: dict[str, Interval | None]
    cross_fitted: dict[str, tuple[float, Interval] | None]
    level: float
    resamples: int

    def to_json(self) -> dict[str, Any]:
        """Return the `intervals` of results.json."""
        return {
            "matrix": [[list(cell) if cell else None for cell in row] for row in self.matrix],
            "summary": {name: list(pair) if pair else None for name, pair in self.summary.items()},
            "cross_fitted": {
                name: {"value": found[0], "interval": list(found[1])} if found else None
                for name, found in self.cross_fitted.items()
            },
            "level": self.level,
            "resamples": self.resamples,
        }


def bootstrap(
    stages: Sequence[MatrixRow],
    columns: Mapping[str, Answers],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return the intervals of every cell and figure.

    Figures have expanded percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13; Hesterberg
    2015, The American Statistician 69, section 5: as much wider as a t interval is than the plug-in normal
    one). One resample draws the n examples of a task, or its clusters, with replacement and scores the same
    draw after every stage, so that what two stages have in common cancels in their difference; tasks are
    drawn independently. The same holds for cells, but a mean of right and wrong answers to n independent
    examples has Wilson's score interval (1927), which covers where nearly all are right. The intervals tell
    how far the numbers would move with another sample of examples, not with another training seed.

    `scripts/coverage.py` simulates how often each of them covers.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers, in the order of the matrix.
        resamples: How many.
        level: The confidence.
        seed: Of the draws; a task's draws depend on this, its name and n alone.
    """
    stack = replicates(stages, columns, resamples=resamples, seed=seed)
    metrics = {task: answers.metric for task, answers in columns.items()}
    kept = comparable(stack, metrics)
    sizes = {task: columns[task].independent for task in kept.tasks}
    smallest = min((n for n in sizes.values() if n), default=0)

    def interval(name: str) -> Interval | None:
        if name in MAXIMA:
            return None
        try:
            return percentiles(FIGURES[name](kept), level, smallest)
        except UndefinedError:  # the summary says why
            return None

    return Intervals(
        _cells(columns, stack, level),
        {name: interval(name) for name in FIGURES},
        _cross_fitted(stages, {task: columns[task] for task in kept.tasks}, kept, level, seed),
        level,
        resamples,
    )


def cell_intervals(
    stages: Sequence[MatrixRow],
    columns: Mapping[str, Answers],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[list[Interval | None]]:
    """Return the intervals of the cells alone, [stages][tasks]: those of `bootstrap`, in less time."""
    return _cells(columns, replicates(stages, columns, resamples=resamples, seed=seed), level)


def _cells(columns: Mapping[str, Answers], stack: ScoreMatrix, level: float) -> list[list[Interval | None]]:
    return [
        [_cell(columns[task], i, column, level) for task, column in zip(columns, row, strict=True)]
        for i, row in enumerate(stack.values.transpose(1, 2, 0))
    ]


def _cell(answers: Answers, stage: int, scores: Floats, level: float) -> Interval | None:
    """The interval of one cell, from its score in each resample."""
    if stage not in answers.present:
        return None
    metric = metric_named(answers.metric)
    if metric.test == "exact McNemar" and answers.clusters is None:
        right = metric.terms(answers.gold, answers.predicted[stage])[0]
        return wilson(int(right.sum()), len(right), level)
    return percentiles(scores, level, answers.independent)


def _cross_fitted(
    stages: Sequence[MatrixRow], columns: Mapping[str, Answers], stack: ScoreMatrix, level: float, seed: int
) -> dict[str, tuple[float, Interval] | None]:
    """Each figure that takes a maximum, and each task's part of it, cross-fitted, with its interval.

    The interval goes from the lower end of the cross-fitted resamples' to the upper end of the plain
    resamples': where few examples choose among many stages, cross-fitting errs low (it misses the best
    stage), and the plain maximum errs high.
    """
    resamples = len(stack.values)
    once = _halves(stages, columns, None, seed)
    drawn = _halves(stages, columns, resamples, seed)
    smallest = min((answers.independent for answers in columns.values()), default=0)

    def found(
        fitted: Callable[..., Floats], plain: Callable[..., Floats], *task: str
    ) -> tuple[float, Interval] | None:
        try:
            value, low = (
                float(fitted(once, *task)[0]),
                percentiles(fitted(drawn, *task), level, smallest // 2),
            )
            high = percentiles(plain(stack, *task), level, smallest)
        except UndefinedError:  # the summary says why
            return None
        if low is None or high is None or np.isnan(value):
            return None
        return value, (low[0], max(low[1], high[1]))

    figures = {name: found(figure, FIGURES[name]) for name, figure in cross_fit.CROSS_FITTED.items()}
    for task in columns:
        figures[f"haque_forgetting.{task}"] = found(cross_fit.haque_forgetting, haque_forgetting, task)
        figures[f"haque_learning.{task}"] = found(cross_fit.haque_learning, haque_learning, task)
    return figures


def _halves(
    stages: Sequence[MatrixRow], columns: Mapping[str, Answers], resamples: int | None, seed: int
) -> tuple[ScoreMatrix, ScoreMatrix]:
    """The scores on either half of each task's examples (clusters stay whole), plain or in each resample."""
    shape = (resamples or 1, len(stages), len(columns))
    scores = np.full((2, *shape), np.nan)
    for column, (task, answers) in enumerate(columns.items()):
        if not answers.present:
            continue
        metric, terms = metric_named(answers.metric), answers.terms()
        clusters = answers.cluster_of_each
        generator = np.random.default_rng([seed, zlib.crc32(task.encode()), 2])
        first = np.isin(clusters, generator.permutation(clusters.max() + 1)[: (clusters.max() + 1) // 2])
        for half, chosen in enumerate((first, ~first)):
            if not chosen.any():
                continue
            part = terms[..., chosen]
            if resamples is None:
                scores[half, :, answers.present, column] = metric.aggregate(
                    part, np.ones((1, part.shape[-1]))
                ).T
            else:
                _, own = np.unique(clusters[chosen], return_inverse=True)
                drawn = resample(metric, part, resamples, generator, own)
                scores[half, :, answers.present, column] = drawn.T
    first_half, second_half = (ScoreMatrix(tuple(columns), tuple(stages), one) for one in scores)
    return first_half, second_half


def replicates(
    stages: Sequence[MatrixRow], columns: Mapping[str, Answers], *, resamples: int = 1000, seed: int = 0
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
                metric_named(answers.metric), answers.terms(), resamples, generator, answers.clusters
            )
    return ScoreMatrix(tuple(columns), tuple(stages), scores)
