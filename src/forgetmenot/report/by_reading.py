"""Results by reading: the outcome of each task under every reading of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgetmenot.record.results import RunResults
from forgetmenot.report.wording import common, way


@dataclass(frozen=True, slots=True)
class Move:
    """A task by one way of asking.

    Attributes:
        learned: Its score after its own stage; that of the base model where none trained it.
        end: Its score after the last stage.
        change: end − learned; None where it was learned last, or a cell is missing.
        unparsed: How many written answers named no label at the end; None where none was read.
        n: How many examples were asked.
    """

    learned: float | None
    end: float | None
    change: float | None
    unparsed: int | None
    n: int


@dataclass(frozen=True, slots=True)
class AskedBy:
    """One way of asking: its title, and the outcome of each task; None for tasks that it did not ask."""

    title: str
    moves: tuple[Move | None, ...]


def asked_otherwise(results: RunResults) -> list[AskedBy]:
    """Every way of asking with the tasks' own metrics, the run's own first; empty where there is no other."""
    readings = [one for one in results.readings if _own_metrics(results, one)]
    if len(readings) < 2:
        return []
    return [
        AskedBy(
            f"{common(one['prompt'])}, {way(one)}",
            tuple(_move(results, one, j) for j in range(len(results.tasks))),
        )
        for one in readings
    ]


def _own_metrics(results: RunResults, reading: Mapping[str, Any]) -> bool:
    """Whether a reading tells how it asked, and scores its tasks as the run's own does."""
    metric = reading["metric"]
    named = metric if isinstance(metric, Mapping) else dict.fromkeys(reading.get("n", ()), metric)
    told = "prompt" in reading and "n" in reading
    return told and all(results.metrics[task] == name for task, name in named.items())


def _move(results: RunResults, reading: Mapping[str, Any], j: int) -> Move | None:
    task, column = results.tasks[j], [row[j] for row in reading["matrix"]]
    if task not in reading["n"]:
        return None
    own, last = results.own_stage(task), len(column) - 1
    learned, end = column[own or 0], column[last]
    known = learned is not None and end is not None and own != last
    unparsed = reading["unparsed"][last][j] if "unparsed" in reading else None
    return Move(learned, end, end - learned if known else None, unparsed, reading["n"][task])
