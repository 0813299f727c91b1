"""A weighted sum of one figure over several groups of runs, with what other examples and seeds make of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetmenot.metrics import (
    ScoreMatrix,
    UndefinedError,
    average_performance,
    backward_transfer,
    comparable,
    learning_accuracy,
)
from forgetmenot.metrics.metric import Floats
from forgetmenot.report.comparison.runs import ComparedRun

END, LOST, LEARNED = "final mean", "drop since learned", "learning accuracy"

FIGURES: dict[str, Callable[[ScoreMatrix], Floats]] = {
    END: average_performance,
    LOST: lambda matrix: -backward_transfer(matrix),
    LEARNED: learning_accuracy,
}
"""What can be tested: no maximum, since a maximum over noisy scores is above 0 where nothing changed."""


class UntestableError(Exception):
    """Why runs cannot be held against one another, as one sentence."""


@dataclass(frozen=True)
class Weighted:
    """A weighted sum over groups of matched runs.

    Attributes:
        values: The figure of every run, one list for each group, the runs in one order.
        resampled: The sum in each bootstrap draw of the examples, the mean over the runs.
        by_seed: The sum with each training seed, the mean over what else varies among the runs.
    """

    values: Sequence[Sequence[float]]
    resampled: Floats
    by_seed: Sequence[float]

    @property
    def means(self) -> tuple[float, ...]:
        """The figure of each group, the mean over its runs."""
        return tuple(float(np.mean(values)) for values in self.values)


def weighted(groups: Sequence[tuple[float, Sequence[ComparedRun]]], figure: str) -> Weighted:
    """Sum a figure over groups of runs, each with its weight.

    Args:
        groups: Weights and runs; the k-th runs of all groups are alike in all but what makes the group.
        figure: A key of FIGURES.

    Raises:
        UntestableError: There are no runs, they were asked different examples, or one has no such figure.
    """
    first = groups[0][1]
    if not first:
        raise UntestableError("No run of the one is alike in all else to a finished run of the other.")
    for run in (run for _, runs in groups for run in runs):
        if run.unpaired:
            raise UntestableError(run.unpaired)
        if run.examples != first[0].examples:
            raise UntestableError(f"{first[0].name} and {run.name} were asked different examples.")
    try:
        found = [[_figure(run, figure) for run in runs] for _, runs in groups]
    except UndefinedError as reason:
        raise UntestableError(str(reason)) from None
    weights = [weight for weight, _ in groups]
    values = [[value for value, _ in runs] for runs in found]
    draws = [np.mean([drawn for _, drawn in runs], axis=0) for runs in found]
    sums = [float(np.dot(weights, one)) for one in zip(*values, strict=True)]
    by_seed: dict[str, list[float]] = {}
    for run, value in zip(first, sums, strict=True):
        by_seed.setdefault(run.key(["seed"]), []).append(value)
    return Weighted(
        values,
        np.dot(weights, draws),
        [float(np.mean(one)) for one in by_seed.values()],
    )


def matched(groups: Sequence[Sequence[ComparedRun]], keys: Sequence[str]) -> list[list[ComparedRun]]:
    """The runs of each group whose keys have a match in all others, in one order."""
    by_key = [{run.key(keys): run for run in runs} for runs in groups]
    common = [key for key in by_key[0] if all(key in others for others in by_key[1:])]
    return [[runs[key] for key in common] for runs in by_key]


def _figure(run: ComparedRun, figure: str) -> tuple[float, Floats]:
    """A figure of a run's own scores, and in each draw of the examples."""
    assert run.results is not None
    assert run.replicates is not None
    stack = comparable(run.replicates, run.results.metrics)
    own = [[math.nan if cell is None else cell for cell in row] for row in run.results.matrix]
    matrix = comparable(replace(run.replicates, values=np.array(own, dtype=np.float64)), run.results.metrics)
    return float(FIGURES[figure](matrix)), FIGURES[figure](stack)
