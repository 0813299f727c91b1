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
        means: The figure of each group: the mean over what else varies among the runs of a seed, and then
            over the seeds.
        by_seed: The sum with each training seed, the mean over what else varies among the runs.
        resampled: The same in each bootstrap draw of the examples [seeds, resamples].
    """

    values: Sequence[Sequence[float]]
    means: tuple[float, ...]
    by_seed: Sequence[float]
    resampled: Floats


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
    of_seed: dict[str, list[int]] = {}
    for place, run in enumerate(first):
        of_seed.setdefault(run.key(["seed"]), []).append(place)
    values = np.array([[value for value, _ in runs] for runs in found])  # [groups, runs]
    drawn = np.array([[each for _, each in runs] for runs in found])  # [groups, runs, resamples]
    seeds = np.stack([values[:, places].mean(axis=1) for places in of_seed.values()], axis=1)
    resampled = np.stack([drawn[:, places].mean(axis=1) for places in of_seed.values()], axis=1)
    return Weighted(
        values=values.tolist(),
        means=tuple(seeds.mean(axis=1).tolist()),
        by_seed=np.dot(weights, seeds).tolist(),
        resampled=np.tensordot(weights, resampled, axes=1),
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
