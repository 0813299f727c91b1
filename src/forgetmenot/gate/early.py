"""A check that stops early: the tuned side is asked batch by batch until every task is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.gate.opened import Opened
from forgetmenot.metrics.sequential import SequentialTest, decide, example_differences, seeded_batches
from forgetmenot.metrics.verdicts import Decision
from forgetmenot.record.predictions import Predictions, column
from forgetmenot.runs.display import Display

BATCH = 32  # as many as fill a pack or two; the decision is valid whenever one looks
TEST = "betting e-process"
COLUMNS = [one.name for one in fields(Predictions) if one.name not in ("labels", "routed")]


@dataclass
class _Asking:
    """A task that is being asked.

    Attributes:
        before: The base's answers to all its examples.
        batches: The places of the examples to come.
        done: Whether nothing more is asked: there is nothing left, or the tuned side gave numbers that are
            not finite.
    """

    scored: ScoredTask
    before: Predictions
    test: SequentialTest
    batches: Iterator[NDArray[np.int64]]
    answers: list[Predictions] = field(default_factory=list)
    done: bool = False

    def ask_next(self, opened: Opened, advance: Any) -> None:
        """Ask the next batch, if there is one, and bet on it."""
        batch = next(self.batches, None)
        if batch is None:
            self.done = True
            return
        places = batch.tolist()
        new = opened.answers(self.scored.only(places), advance)
        self.answers.append(new)
        if new.not_finite:
            self.done = True
            return
        differences = example_differences(column(self.scored.task.metric, [part(self.before, places), new]))
        assert differences is not None
        clusters = self.before.clusters
        self.test.update(differences, None if clusters is None else clusters[batch])


def answers_until_decided(
    opened: Opened,
    scored: Sequence[ScoredTask],
    before: Mapping[str, Predictions],
    margins: Mapping[str, float],
    display: Display,
) -> tuple[dict[str, Predictions], dict[str, Decision]]:
    """Ask the tuned side in an order fixed by a seed, and stop asking a task once it is decided.

    Tasks whose score is no mean over examples, and losses, are asked whole: no bet on these is fair.

    Args:
        opened: The tuned side.
        scored: The tasks, in its tokens.
        before: The base's answers to all examples.
        margins: Task to ε.
        display: Where to show progress.

    Returns:
        Its answers, and the decisions on the tasks that were asked by parts.
    """
    opened.examine(scored)
    whole, by_parts = [], {}
    for one in scored:
        name, base = one.task.name, before[one.task.name]
        if example_differences(column(one.task.metric, [base, base])) is None:
            whole.append(one)
        else:
            clusters = base.clusters
            largest = 1 if clusters is None else int(np.bincount(clusters).max())
            test = SequentialTest(margins[name], largest)
            by_parts[name] = _Asking(one, base, test, seeded_batches(len(base), BATCH, clusters=clusters))
    tests = {name: asking.test for name, asking in by_parts.items()}
    decisions = decide(tests)
    with display.progress(
        f"{opened.identity['title']}: scoring", sum(one.count() for one in scored)
    ) as advance:
        answers = {one.task.name: opened.answers(one, advance) for one in whole}
        while going := [
            asking
            for name, asking in by_parts.items()
            if decisions[name] == "cannot tell" and not asking.done
        ]:
            for asking in going:
                asking.ask_next(opened, advance)
            decisions = decide(tests, decisions)
    return answers | {name: _joined(asking.answers) for name, asking in by_parts.items()}, decisions


def part(predictions: Predictions, places: Sequence[int]) -> Predictions:
    """Some of the answers, in the order of the places."""
    columns: dict[str, Any] = {name: [getattr(predictions, name)[k] for k in places] for name in COLUMNS}
    return replace(predictions, **columns)


def same_examples(before: Predictions, after: Predictions) -> Predictions:
    """The answers before to the examples that were asked after, in their order."""
    if before.ids == after.ids:
        return before
    place = {name: k for k, name in enumerate(before.ids)}
    return part(before, [place[name] for name in after.ids])


def _joined(answers: Sequence[Predictions]) -> Predictions:
    columns: dict[str, Any] = {
        name: [value for one in answers for value in getattr(one, name)] for name in COLUMNS
    }
    return replace(answers[0], **columns)
