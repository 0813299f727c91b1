"""Results by reading: the outcome of each task under every reading of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.record.results import RunResults
from forgetmenot.report.verdict_words import difference_words, interval_words
from forgetmenot.report.wording import common, listed, way


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


@dataclass(frozen=True, slots=True)
class Recovery:
    """What one way of asking brings back of a task at the end.

    Attributes:
        how: In what it differs from how the run asks.
        brought_back: From the end as the run asks to the end with this help.
        still_lost: From the task's own stage as the run asks to the end with this help.
    """

    how: str
    brought_back: VerdictOf
    still_lost: VerdictOf

    @property
    def whole(self) -> bool:
        """Whether the score of the task's own stage is reached, within the margin."""
        return self.still_lost["decision"] in ("kept", "gained")


def recoveries(results: RunResults) -> dict[str, list[Recovery]]:
    """For each task what every other way of asking brings back; tasks without are left out."""
    found: dict[str, list[Recovery]] = {}
    for reading in results.further_readings:
        if not _own_metrics(results, reading):
            continue
        for task, both in reading.get("recovery", {}).items():
            if how := _difference(results.headline, reading, task):
                found.setdefault(task, []).append(Recovery(how, both["brought_back"], both["still_lost"]))
    return found


def recovery_sentences(results: RunResults, task: str | None = None) -> list[str]:
    """Of each task that was forgotten, or of one, whether any help brings it back."""
    said = []
    found = recoveries(results)
    for outcome in results.outcomes if task is None else [results.outcome(task)]:
        lost, metric = outcome.own_end, outcome.metric
        if lost is None or lost["decision"] != "forgotten" or outcome.task not in found:
            continue
        back = [one for one in found[outcome.task] if one.brought_back["decision"] == "gained"]
        if not back:
            tried = listed([one.how for one in found[outcome.task]])
            said.append(f"Nothing tried is shown to bring {outcome.task} back ({tried}).")
        for one in back:
            numbers = (
                f"{difference_words(one.brought_back, metric)} ({interval_words(one.brought_back, metric)})"
            )
            whole = "; that is all of it within the margin: the access was lost, not the ability"
            said.append(
                f"{one.how[0].upper()}{one.how[1:]}: {numbers} on {outcome.task}, of "
                f"{difference_words(lost, metric)} since its own stage{whole if one.whole else ''}."
            )
    return said


def _difference(own: Mapping[str, Any], reading: Mapping[str, Any], task: str) -> str:
    """In what a reading differs from the run's own, for one task; empty where it does not."""
    parts = []
    if reading["prompt"].get(task) != own["prompt"].get(task):
        parts.append(f"the prompt {reading['prompt'][task]}")
    shown = reading.get("demonstrations", {}).get(task)
    if shown != own.get("demonstrations", {}).get(task):
        parts.append(f"{shown['count']} demonstrations" if shown else "no demonstrations")
    keys = ("scoring", "normalization", "calibration")
    if how := [reading[key] for key in keys if reading[key] != own[key]]:
        parts.append(f"scoring by {', '.join(how)}")
    if again := reading.get("realigned", {}).get(task):
        parts.append(f"training on {again} examples")
    return listed(parts) if parts else ""
