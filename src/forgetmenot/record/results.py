"""results.json as it is read: the content, and what follows from it for one task or cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.metrics import PAIRS, MatrixRow, ScoreMatrix, metric_named, summarize
from forgetmenot.metrics.resampling import Interval
from forgetmenot.record.damage import damaged
from forgetmenot.record.layout import RESULTS
from forgetmenot.record.predictions import NOT_FINITE
from forgetmenot.record.result_schema import VERSION, Results, VerdictOf
from forgetmenot.record.seal import read_json

State = Literal["forgotten", "cannot tell", "kept", "gained", "ahead", "not judged"]

WORST_FIRST: tuple[State, ...] = ("forgotten", "cannot tell", "kept", "gained")

SIGNIFICANT = 0.05
"""Below which a p says that two methods or prompts differ. What became of a task, its verdicts say."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The outcome of one task.

    Attributes:
        metric: The name of its metric.
        base: Its score before any training, R[0][j].
        learned: Its score after the stage that first trained it, R[j][j]; None for a task only watched.
        end: Its score after the last stage, R[T][j]; None where stages do not go on from one another.
        base_end: The verdict from the base model to the end, which is what a user asks first.
        own_end: From its own stage to the end; None for a task only watched, or learned last.
        base_own: From the base model to its own stage; None for a task only watched.
        not_learned: Its own stage did not bring it above the chance level.
        state: The worst of what was decided of its end, or of its learning where it has no end of its own;
            `ahead` has its own stage still to come, `not judged` has no verdict: the run is not finished, or
            its file is older than verdicts.
    """

    task: str
    metric: str
    base: float | None
    learned: float | None
    end: float | None
    base_end: VerdictOf | None
    own_end: VerdictOf | None
    base_own: VerdictOf | None
    not_learned: bool
    state: State

    @property
    def trained(self) -> bool:
        """Whether a stage that was measured has trained it."""
        return self.learned is not None or self.base_own is not None

    @property
    def lost(self) -> float:
        """How many margins it lost, by the worse of its two verdicts on the end; 0 where nothing is known."""
        found = [one for one in (self.base_end, self.own_end) if one and one["difference"] is not None]
        return max((-(one["difference"] or 0.0) / one["margin"] for one in found), default=0.0)

    def shown(self, value: float | None) -> float | None:
        """A score or a change of the task as people write it."""
        return None if value is None else metric_named(self.metric).shown(value)


class RunResults:
    """The content of `results.json`, tolerant of keys that older files lack.

    Args:
        results: The parsed file. Only tasks, stages, matrix, metrics and summary must be there. A matrix
            with fewer rows than stages belongs to a run that is still going.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.split = str(results.get("split", "score"))
        self.model = str(results.get("model", "the model"))
        self.method = str(results.get("method", ""))
        self.adapter = str(results.get("adapter", ""))
        self.seed: int | None = results.get("seed")
        self.tasks: tuple[str, ...] = tuple(results["tasks"])
        self.stages = tuple(
            MatrixRow(stage["name"], tuple(stage["trains_on"]), stage.get("follows", True))
            for stage in results["stages"]
        )
        self.measured = len(results["matrix"])
        self.matrix = _rows(results["matrix"], len(self.stages), len(self.tasks))
        self.metrics: Mapping[str, str] = results["metrics"]
        self.majority: Mapping[str, float | None] = results.get("majority", {})
        self.not_learned: tuple[str, ...] = tuple(results.get("not_learned", ()))
        self.summary: Mapping[str, Any] = results["summary"]
        intervals = results.get("intervals", {})
        self.intervals = _rows(intervals.get("matrix", ()), len(self.stages), len(self.tasks))
        self.summary_intervals: Mapping[str, Any] = intervals.get("summary", {})
        self.cross_fitted: Mapping[str, Any] = intervals.get("cross_fitted", {})
        self.noise_floor: Mapping[str, float | None] = results.get("noise_floor", {})
        judged = results.get("verdicts", {}) if self.complete else {}
        self.verdicts: Mapping[str, Mapping[str, VerdictOf]] = judged
        self.readings: Sequence[Mapping[str, Any]] = results.get("readings", ())
        self.asked_again: Mapping[str, Any] = results.get("asked_again", {})
        self.probes: Mapping[str, Mapping[str, Any]] = results.get("probes", {})
        self.cost: Mapping[str, Any] = results.get("cost", {})
        self._places = {task: j for j, task in enumerate(self.tasks)}
        self._own: dict[str, int] = {}
        for i, stage in enumerate(self.stages):
            for task in stage.trains_on:
                self._own.setdefault(task, i)

    def on(self, tasks: Sequence[str]) -> "RunResults":
        """The scores of some of its tasks alone, with the figures that follow from these.

        What cannot be told from scores is left out: noise floors, intervals and what probes measured.
        """
        columns = [self._places[task] for task in tasks]
        matrix = [[row[j] for j in columns] for row in self.matrix]
        values = np.array([[np.nan if cell is None else cell for cell in row] for row in matrix])
        metrics = {task: self.metrics[task] for task in tasks}
        return RunResults(
            {
                "split": self.split,
                "model": self.model,
                "method": self.method,
                "adapter": self.adapter,
                "seed": self.seed,
                "tasks": list(tasks),
                "stages": [
                    {"name": one.name, "trains_on": one.trains_on, "follows": one.follows}
                    for one in self.stages
                ],
                "matrix": matrix,
                "metrics": metrics,
                "majority": {task: self.majority.get(task) for task in tasks},
                "not_learned": [task for task in self.not_learned if task in tasks],
                "summary": summarize(ScoreMatrix(tuple(tasks), self.stages, values), metrics).to_json(),
                "verdicts": {
                    pair: {task: one for task, one in found.items() if task in tasks}
                    for pair, found in self.verdicts.items()
                },
                "cost": self.cost,
            }
        )

    @property
    def name(self) -> str:
        """The model's name without the folder or the owner it comes from."""
        return self.model.rstrip("/").rpartition("/")[2]

    @property
    def complete(self) -> bool:
        """Whether every stage has its row."""
        return self.measured == len(self.stages)

    @cached_property
    def in_sequence(self) -> bool:
        """Whether each stage went on from the one before; the first follows the base in any case."""
        return all(stage.follows for stage in self.stages[2:])

    def column(self, task: str) -> list[float | None]:
        """The scores of one task, one per stage."""
        j = self._places[task]
        return [row[j] for row in self.matrix]

    def spans(self, task: str) -> list[Interval | None]:
        """The 95 % intervals of one task's scores, one per stage."""
        j = self._places[task]
        return [tuple(row[j]) if row[j] else None for row in self.intervals]

    def own_stage(self, task: str) -> int | None:
        """The index of the stage that first trained the task, None where none did."""
        return self._own.get(task)

    def shown(self, task: str, value: float | None) -> float | None:
        """A score as people write it: the matrix holds a loss with its sign turned."""
        return None if value is None else metric_named(self.metrics[task]).shown(value)

    def shown_span(self, task: str, span: Interval | None) -> Interval | None:
        """An interval of scores as people write it, low to high."""
        if span is None:
            return None
        low, high = sorted(metric_named(self.metrics[task]).shown(end) for end in span)
        return low, high

    def metric_title(self, task: str) -> str:
        """The name of a task's metric, and what it counts where lower is better."""
        metric = metric_named(self.metrics[task])
        name = metric.name.replace("_", " ")
        return name if metric.direction == "higher" else f"{name}, {metric.unit}, lower is better"

    def bounded(self, task: str) -> bool:
        """Whether the task's metric cannot exceed 1."""
        return metric_named(self.metrics[task]).bounded

    def level(self, task: str, value: float | None) -> float | None:
        """Where a score lies between the chance level (0) and a perfect score (1).

        Without a chance level 0 stands for it. An unbounded score (a loss) is placed between the worst
        and the best of its column.
        """
        if value is None:
            return None
        if self.bounded(task):
            floor, top = self.majority.get(task) or 0.0, 1.0
        else:
            column = [score for score in self.column(task) if score is not None]
            floor, top = min(column), max(column)
        return min(max((value - floor) / (top - floor), 0.0), 1.0) if top > floor else 0.0

    def above_chance(self, task: str, value: float | None) -> bool:
        """Whether a score beats answering without looking; True where that has no meaning."""
        majority = self.majority.get(task)
        return value is None or majority is None or value > majority

    def since_learned(self, task: str, i: int) -> float | None:
        """How far the score after stage i lies from the one right after the task's own stage."""
        own = self.own_stage(task)
        if own is None or i <= own or not self.in_sequence:
            return None
        column = self.column(task)
        now, then = column[i], column[own]
        return now - then if now is not None and then is not None else None

    def outcome(self, task: str) -> TaskOutcome:
        """The outcome of one task between the base model, its own stage and the last measured stage."""
        column, own, last = self.column(task), self.own_stage(task), self.measured - 1
        base_end, own_end, base_own = (self.verdicts.get(pair, {}).get(task) for pair in PAIRS)
        learned = column[own] if own is not None else None
        return TaskOutcome(
            task=task,
            metric=self.metrics[task],
            base=column[0],
            learned=learned,
            end=column[last] if self.in_sequence else None,
            base_end=base_end,
            own_end=own_end,
            base_own=base_own,
            not_learned=task in self.not_learned,
            state="ahead" if own is not None and own > last else _state(base_end, own_end, base_own),
        )

    @property
    def outcomes(self) -> list[TaskOutcome]:
        """The outcome of every task, in the order of the columns."""
        return [self.outcome(task) for task in self.tasks]

    @property
    def worst_first(self) -> list[TaskOutcome]:
        """The outcomes by what matters most: what was forgotten, by how many margins, then the others."""
        order = {state: k for k, state in enumerate(WORST_FIRST)}
        return sorted(
            self.outcomes,
            key=lambda one: (order.get(one.state, len(order)), -one.lost if one.state == "forgotten" else 0),
        )

    @property
    def further_readings(self) -> list[Mapping[str, Any]]:
        """The readings beside the headline, which is the one that repeats the run's own matrix."""
        headline = self.headline
        return [reading for reading in self.readings if reading is not headline]

    @cached_property
    def headline(self) -> Mapping[str, Any]:
        """The reading that `matrix` came from; empty where the file lists none."""
        rows = [list(row) for row in self.matrix[: self.measured]]
        return next((reading for reading in self.readings if reading["matrix"] == rows), {})

    def columns_of(self, reading: Mapping[str, Any]) -> list[int]:
        """The columns in which a reading has a score at all."""
        return [j for j in range(len(self.tasks)) if any(row[j] is not None for row in reading["matrix"])]

    @property
    def missing(self) -> list[tuple[str, str, str]]:
        """Every empty cell of the headline reading: stage, task and reason."""
        reasons = {(gap["stage"], gap["task"]): gap["reason"] for gap in self.headline.get("missing", ())}
        return [
            (stage.name, task, reasons.get((stage.name, task), "No reason was recorded."))
            for stage, row in zip(self.stages[: self.measured], self.matrix, strict=False)
            for task, value in zip(self.tasks, row, strict=True)
            if value is None
        ]

    @property
    def not_finite(self) -> str | None:
        """The first cell whose model had numbers that are not finite, as a sentence; None if none had."""
        return next(
            (
                f"{task} has no score after {stage}. {reason}"
                for stage, task, reason in self.missing
                if reason.startswith(NOT_FINITE)
            ),
            None,
        )


def load_results(run_dir: Path) -> RunResults:
    """Read a run directory's `results.json`.

    Raises:
        UserError: It is not there, is damaged, or has a version that this program does not know.
    """
    results = read_results_file(run_dir)
    if results is None:
        raise UserError(
            f"{run_dir} has no results.json: give the directory of a run that has scored a stage."
        )
    return RunResults(results)


def read_results_file(run_dir: Path) -> Results | None:
    """The content of a run directory's `results.json`; None where there is none.

    Raises:
        UserError: It is damaged, or has a version that this program does not know.
    """
    path = run_dir / RESULTS
    if not path.exists():
        return None
    results: Any = read_json(path, dict)
    if results.get("version") != VERSION:
        raise UserError(
            f"{path} has version {results.get('version')!r} and this program reads version {VERSION}: "
            "use the release of forgetmenot that wrote it."
        )
    try:
        RunResults(results)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, f"it lacks what results hold ({error!r})") from error
    return cast(Results, results)


def _state(base_end: VerdictOf | None, own_end: VerdictOf | None, base_own: VerdictOf | None) -> State:
    found = [one["decision"] for one in (base_end, own_end) if one] or [
        one["decision"] for one in (base_own,) if one
    ]
    return next((state for state in WORST_FIRST if state in found), "not judged")


def _rows(rows: Sequence[Sequence[Any]], height: int, width: int) -> list[list[Any]]:
    """Copy the rows that are there and fill the rest with None."""
    return [list(row) for row in rows] + [[None] * width for _ in range(height - len(rows))]
