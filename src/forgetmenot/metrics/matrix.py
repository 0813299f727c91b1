"""The score matrix R and the figures derived from it.

R[i][j] is the score on task j after stage i; row 0 is the untouched base model. Stages and columns are two
lists: a column may never be trained on, and a stage may train several tasks or one that has no column. The
figures are over the T trained columns in the order learned; R[j][j] is the score on j after the stage that
first trained j, and R[T] is the last row. With one task per stage that is the literature's own notation.

Every figure is a function from a matrix to an array of the matrix's leading shape, () for a single matrix.
A stack of matrices [b, stages, tasks], one per resample, so goes through the very same formulas.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from forgetmenot.metrics.metric import Floats


class UndefinedError(Exception):
    """Why a figure has no value, as one sentence."""


@dataclass(frozen=True)
class MatrixRow:
    """A row of the score matrix: a stage, the tasks it trains on, and whether it continues the last one.

    `follows` is False where a stage starts from the base model, as all those of the method `single` do.
    """

    name: str
    trains_on: tuple[str, ...] = ()
    follows: bool = True

    @property
    def label(self) -> str:
        """The name without its number: "sst2" for "01-sst2"."""
        return self.name.partition("-")[2] or self.name


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores [..., stages, tasks]; nan is a missing cell. Stage 0 is the base model and trains on nothing.

    Raises:
        ValueError: The shape does not fit the stages and tasks, a task comes twice, or stage 0 trains.
    """

    tasks: tuple[str, ...]
    stages: tuple[MatrixRow, ...]
    values: Floats

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        if values.shape[-2:] != (len(self.stages), len(self.tasks)):
            raise ValueError(
                f"{values.shape} scores for {len(self.stages)} stages × {len(self.tasks)} tasks."
            )
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"A task comes twice among the columns {', '.join(self.tasks)}.")
        if not self.stages or self.stages[0].trains_on:
            raise ValueError("Stage 0 must be the base model, which trains on nothing.")

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The columns that some stage trains, in the order learned."""
        return tuple(task for task in self._learned_in if task in self._places)

    def learned_in(self, task: str) -> int:
        """Return the index of the first stage that trains on `task`."""
        return self._learned_in[task]

    @cached_property
    def _learned_in(self) -> dict[str, int]:
        """The first stage of each task that some stage trains, in the order learned."""
        found: dict[str, int] = {}
        for i, stage in enumerate(self.stages):
            for task in stage.trains_on:
                found.setdefault(task, i)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        """The column of each task: the figures look one up for every task, and there may be thousands."""
        return {task: column for column, task in enumerate(self.tasks)}

    def only(self, tasks: Iterable[str]) -> "ScoreMatrix":
        """Return the matrix with these columns alone."""
        names = tuple(tasks)
        columns = [self._places[task] for task in names]
        return replace(self, tasks=names, values=self.values[..., columns])

    def cells(self, where: Iterable[tuple[int, str]]) -> Floats:
        """Return the scores [..., m] in m cells, each a stage's index and a task.

        Raises:
            UndefinedError: One of them is missing.
        """
        places = [(row, self._places[task]) for row, task in where]
        rows, columns = np.array(places, dtype=np.intp).T
        scores = self.values[..., rows, columns]
        missing = np.isnan(scores).reshape(-1, len(places)).all(axis=0)
        if missing.any():
            row, column = places[int(np.argmax(missing))]
            raise UndefinedError(
                f"The score on {self.tasks[column]} after stage {self.stages[row].name} is missing."
            )
        return scores


Figure = Callable[[ScoreMatrix], Floats]


def average_performance(matrix: ScoreMatrix) -> Floats:
    """AP = mean_j R[T][j] (Lopez-Paz and Ranzato 2017, ACC; TRACE, arXiv 2310.06762, OP)."""
    last = len(matrix.stages) - 1
    return _mean(matrix.cells((last, task) for task in learned_in_sequence(matrix)))


def backward_transfer(matrix: ScoreMatrix, denominator: Literal["T-1", "T"] = "T-1") -> Floats:
    """BWT = 1/(T−1) · Σ_{j<T} (R[T][j] − R[j][j]) (Lopez-Paz and Ranzato 2017, equation 3).

    The sum is over the tasks learned before the last stage and T−1 is their number, which with one task per
    stage is the printed formula. TRACE prints 1/T, the number of all learned tasks, though its tables follow
    1/(T−1). Avalanche's "forgetting" is −BWT.
    """
    tasks, last = learned_before_last(matrix), len(matrix.stages) - 1
    at_the_end = matrix.cells((last, task) for task in tasks)
    when_learned = matrix.cells((matrix.learned_in(task), task) for task in tasks)
    transfer = _mean(at_the_end - when_learned)
    return transfer if denominator == "T-1" else transfer * len(tasks) / len(matrix.trained)


def forward_transfer(matrix: ScoreMatrix) -> Floats:
    """FWT = 1/(T−1) · Σ_{j>1} (R[j−1][j] − R[0][j]) (Lopez-Paz and Ranzato 2017, equation 4).

    Over the tasks learned after the first training stage; R[j−1] is the row before j was learned. The
    paper's random-initialisation baseline is the base model here.
    """
    tasks = [task for task in learned_in_sequence(matrix) if matrix.learned_in(task) > 1]
    if not tasks:
        raise UndefinedError("No task was learned after the first stage, so none could profit from it.")
    just_before = matrix.cells((matrix.learned_in(task) - 1, task) for task in tasks)
    return _mean(just_before - matrix.cells((0, task) for task in tasks))


def forgetting(matrix: ScoreMatrix) -> Floats:
    """F = 1/(T−1) · Σ_{j<T} (max_{1≤l<T} R[l][j] − R[T][j]) (Chaudhry et al. 2018, arXiv 1801.10112).

    Over the tasks learned before the last stage. A maximum over noisy cells is positive where nothing
    changed: read it beside `noise_floor`.
    """
    last = len(matrix.stages) - 1
    drops = [
        matrix.cells((row, task) for row in range(1, last)).max(axis=-1)
        - matrix.cells([(last, task)])[..., 0]
        for task in learned_before_last(matrix)
    ]
    return _mean(np.stack(drops, axis=-1))


def learning_accuracy(matrix: ScoreMatrix) -> Floats:
    """LA = mean_j R[j][j] (Riemer et al. 2019, arXiv 1810.11910)."""
    return _mean(matrix.cells((matrix.learned_in(task), task) for task in learned(matrix)))


def intransigence(matrix: ScoreMatrix, reference: Mapping[str, float]) -> Floats:
    """mean_j (R*[j] − R[j][j]) (Chaudhry et al. 2018, arXiv 1801.10112, averaged over the tasks).

    Args:
        matrix: What was learned in a sequence.
        reference: R*, task to score, of a model that learned it without the sequence: `joint` or `single`.
    """
    tasks = learned(matrix)
    for task in tasks:
        if np.isnan(reference.get(task, np.nan)):
            raise UndefinedError(f"The reference has no score on {task}.")
    when_learned = matrix.cells((matrix.learned_in(task), task) for task in tasks)
    return _mean(np.array([reference[task] for task in tasks]) - when_learned)


def haque_forgetting(matrix: ScoreMatrix, task: str) -> Floats:
    """Forgetting_j = max_{0≤k≤T} R[k][j] − R[T][j], never negative (Haque 2025, arXiv 2504.01241)."""
    scores = _history(matrix, task)
    return np.asarray(scores.max(axis=-1) - scores[..., -1])


def haque_learning(matrix: ScoreMatrix, task: str) -> Floats:
    """Learning_j = max_{0≤k≤T} R[k][j] − R[0][j], never negative (Haque 2025, arXiv 2504.01241)."""
    scores = _history(matrix, task)
    return np.asarray(scores.max(axis=-1) - scores[..., 0])


def haque_forgetting_mean(matrix: ScoreMatrix) -> Floats:
    """mean_j Forgetting_j; its sum and that of learning obey mean R[T] = mean R[0] + (ΣL − ΣF)/T."""
    return _mean(np.stack([haque_forgetting(matrix, task) for task in learned(matrix)], axis=-1))


def haque_learning_mean(matrix: ScoreMatrix) -> Floats:
    """mean_j Learning_j."""
    return _mean(np.stack([haque_learning(matrix, task) for task in learned(matrix)], axis=-1))


def haque_forgetting_sum(matrix: ScoreMatrix) -> Floats:
    """Σ_j Forgetting_j: what the paper's table must hold, since its figures exceed 1 (our inference)."""
    return np.asarray(haque_forgetting_mean(matrix) * len(matrix.trained))


def haque_learning_sum(matrix: ScoreMatrix) -> Floats:
    """Σ_j Learning_j: what the paper's table must hold, since its figures exceed 1 (our inference)."""
    return np.asarray(haque_learning_mean(matrix) * len(matrix.trained))


def pretrained_mean(matrix: ScoreMatrix) -> Floats:
    """mean_j R[0][j], the paper's pretrained performance."""
    return _mean(matrix.cells((0, task) for task in learned_in_sequence(matrix)))


def stage_mean(matrix: ScoreMatrix) -> Floats:
    """The mean over the stages after the base of their row means, one reading of "training performance".

    The paper does not define it (arXiv 2504.01241); the others are the final row's mean
    (`average_performance`) and the diagonal's (`learning_accuracy`).
    """
    tasks = learned_in_sequence(matrix)
    return _mean(matrix.cells((row, task) for row in range(1, len(matrix.stages)) for task in tasks))


def diagonal_mean(matrix: ScoreMatrix) -> Floats:
    """mean_j R[j][j] of a sequence, one reading of the paper's "training performance"."""
    learned_in_sequence(matrix)
    return learning_accuracy(matrix)


FIGURES: dict[str, Figure] = {
    "average_performance": average_performance,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
    "forgetting": forgetting,
    "learning_accuracy": learning_accuracy,
    "haque_forgetting_sum": haque_forgetting_sum,
    "haque_forgetting_mean": haque_forgetting_mean,
    "haque_learning_sum": haque_learning_sum,
    "haque_learning_mean": haque_learning_mean,
    "haque_pretrained_mean": pretrained_mean,
    "haque_final_mean": average_performance,
    "haque_stage_mean": stage_mean,
    "haque_diagonal_mean": diagonal_mean,
}


def learned_before_last(matrix: ScoreMatrix) -> tuple[str, ...]:
    """Return the tasks that a later stage could make forget, in the order learned.

    Raises:
        UndefinedError: There are none: one task, one stage, or stages that do not follow one another.
    """
    tasks = learned_in_sequence(matrix)
    last = len(matrix.stages) - 1
    earlier = tuple(task for task in tasks if matrix.learned_in(task) < last)
    if not earlier:
        counted = "The only task was" if len(tasks) == 1 else "All tasks were"
        raise UndefinedError(f"{counted} learned in the last stage, so nothing came after to forget it.")
    return earlier


def ability_delta(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the mean over a probe's parts of (after − before) (TRACE, arXiv 2310.06762, ΔR^G, ΔR^I, ΔR^S).

    Raises:
        ValueError: The two do not have the same parts, or have none.
    """
    if before.keys() != after.keys() or not before:
        raise ValueError(f"Parts differ: {sorted(before)} before, {sorted(after)} after.")
    return float(np.mean([after[part] - before[part] for part in before]))


def learned(matrix: ScoreMatrix) -> tuple[str, ...]:
    """Return the tasks that some stage trains, in the order learned.

    Raises:
        UndefinedError: There are none.
    """
    if not matrix.trained:
        raise UndefinedError("None of the tasks scored has been trained on.")
    return matrix.trained


def learned_in_sequence(matrix: ScoreMatrix) -> tuple[str, ...]:
    """Return the same, where each stage continues the one before.

    Raises:
        UndefinedError: There are none, or stages start from the base model.
    """
    # Stage 1 starts from the base model in any case.
    if not all(stage.follows for stage in matrix.stages[2:]):
        raise UndefinedError("Each stage starts from the base model, so none can forget another's task.")
    return learned(matrix)


def _history(matrix: ScoreMatrix, task: str) -> Floats:
    learned_in_sequence(matrix)
    return matrix.cells((row, task) for row in range(len(matrix.stages)))


def _mean(scores: Floats) -> Floats:
    return np.asarray(scores.mean(axis=-1))
