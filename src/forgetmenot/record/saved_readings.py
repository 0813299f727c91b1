"""Readings that `fmn score` took of a run's saved stages: what a report shows beside the run's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.record.layout import READINGS
from forgetmenot.record.results import RunResults
from forgetmenot.record.seal import read_json

APART_BY = ("metric", "prompt_hash", "scoring", "normalization", "calibration", "demonstrations", "realigned")
"""What tells readings of the same tasks from one another."""


@dataclass(frozen=True)
class OtherTasks:
    """A reading of tasks that the run does not score: its scores are [stages][tasks]."""

    reading: Mapping[str, Any]
    tasks: Sequence[str]
    stages: Sequence[str]
    matrix: Sequence[Sequence[float | None]]


def with_saved_readings(results: RunResults, run_dir: Path) -> tuple[RunResults, list[OtherTasks]]:
    """A run's results with what was asked later, and the readings of other tasks.

    Raises:
        UserError: A file under readings/ is damaged.
    """
    others = []
    for path in sorted((run_dir / READINGS).glob("*.json")):
        saved: Any = read_json(path, dict)
        if saved is None or "matrix" not in saved:  # a probe that was measured later
            continue
        if more := [task for task in saved["tasks"] if task not in results.tasks]:
            columns = [saved["tasks"].index(task) for task in more]
            matrix = [[row[j] for j in columns] for row in saved["matrix"]]
            others.append(OtherTasks(saved, more, saved["stages"], matrix))
        if len(more) < len(saved["tasks"]) and not any(_same(saved, one) for one in results.readings):
            results.readings = [*results.readings, _placed(saved, results)]
    return results, others


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two readings ask the same tasks alike."""
    tasks = set(one["tasks"]) & set(other.get("n", ()))
    return tasks == set(one["tasks"]) and all(
        _of(one.get(key), tasks) == _of(other.get(key), tasks) for key in APART_BY
    )


def _of(value: Any, tasks: set[str]) -> Any:
    """A value of a reading for some tasks alone, where it has one for each."""
    if isinstance(value, Mapping):
        return {task: said for task, said in value.items() if task in tasks}
    return value


def _placed(saved: Mapping[str, Any], results: RunResults) -> dict[str, Any]:
    """A saved reading with its rows and columns where the run has them."""
    rows = {stage: i for i, stage in enumerate(saved["stages"])}
    columns = {task: j for j, task in enumerate(saved["tasks"])}

    def placed(values: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [
            [
                values[rows[stage.name]][columns[task]] if stage.name in rows and task in columns else None
                for task in results.tasks
            ]
            for stage in results.stages
        ]

    laid = {key: placed(saved[key]) for key in ("matrix", "intervals", "unparsed") if key in saved}
    return {**saved, **laid, "n": {task: n for task, n in saved["n"].items() if task in results.tasks}}
