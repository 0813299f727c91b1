"""What a side answers: the base, with the noise of the path; a tuned side, whole or until decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.gate.baseline import Noise, asked, read_baseline, write_baseline
from forgetmenot.gate.early import answers_until_decided
from forgetmenot.gate.loaded import Loaded, with_zero_delta
from forgetmenot.gate.opened import Opened, opened_side
from forgetmenot.gate.panel import Panel, again, answers_of
from forgetmenot.gate.sides import Side
from forgetmenot.metrics.verdicts import Decision
from forgetmenot.probes import Part
from forgetmenot.record.predictions import Predictions, require_finite
from forgetmenot.report.beforehand import can_be_shown
from forgetmenot.runs.display import Display

Probed = Callable[[Opened, int], Mapping[str, Sequence[Part]]]
"""What the probes find of a side, by its number."""


@dataclass(frozen=True)
class Answered:
    """A side's answers.

    Attributes:
        details: What the report says of the side.
        scored: The tasks, in its own tokens.
        notes: What the user should know of how it was asked.
        noise: Of the base: what another order and batch size change, and a zero-delta adapter.
        decisions: On the tasks that were asked until they were decided.
        probes: What each probe found.
    """

    side: Side
    details: Mapping[str, Any]
    scored: Sequence[ScoredTask]
    answers: Mapping[str, Predictions]
    notes: Sequence[str]
    noise: Noise = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    probes: Mapping[str, Sequence[Part]] = field(default_factory=dict)


def ask_base(
    side: Side,
    panel: Panel,
    training: TrainingSettings,
    display: Display,
    probed: Probed,
    baseline: Path | None,
    *,
    adapted: bool,
) -> Answered:
    """The base's answers, from the baseline if there is one, with the noise of the path.

    Args:
        side: The base.
        panel: What is asked.
        training: As `opened_side` takes it.
        display: Where to show progress.
        probed: What the probes find.
        baseline: The file that keeps the answers.
        adapted: Whether another side is an adapter on it: a zero-delta adapter is the control of that path.
    """
    with opened_side(side, training, display) as there:
        scored, details, notes = _prepared(side, panel, there, display)
        for sentence in can_be_shown(panel.at_hand(scored)):
            display.say(sentence)
        about = asked(scored, there.identity)
        if baseline is not None and baseline.is_file():
            answers, noise = read_baseline(baseline, about, scored)
            display.say(f"{side.title}: answers from {baseline}")
            return Answered(side, details, scored, answers, notes, noise, probes=probed(there, 0))
        with there.answering():
            answers = answers_of(there, scored, display)
            for task, one in answers.items():
                require_finite(task, [one])
            noise = {"again": again(there, scored, answers)}
        found = probed(there, 0)
        if adapted:
            assert isinstance(there, Loaded)
            with_zero_delta(there)
            noise["control"] = again(there, scored, answers)
    if baseline is not None:
        write_baseline(baseline, about, answers, noise)
    return Answered(side, details, scored, answers, notes, noise, probes=found)


def ask_tuned(
    side: Side,
    panel: Panel,
    training: TrainingSettings,
    display: Display,
    number: int,
    probed: Probed,
    before: Mapping[str, Predictions] | None,
) -> Answered:
    """A tuned side's answers: to all examples, or, with the base's answers, until every task is decided."""
    with opened_side(side, training, display) as there:
        scored, details, notes = _prepared(side, panel, there, display)
        with there.answering():
            decisions: Mapping[str, Decision] = {}
            if before is None:
                answers = answers_of(there, scored, display)
            else:
                answers, decisions = answers_until_decided(there, scored, before, panel.margins, display)
        return Answered(
            side, details, scored, answers, notes, decisions=decisions, probes=probed(there, number)
        )


def _prepared(
    side: Side, panel: Panel, there: Opened, display: Display
) -> tuple[list[ScoredTask], dict[str, Any], list[str]]:
    """The tasks in a side's tokens, what the report says of it, and what the user should know."""
    display.say(f"{side.title}: {there.in_words}")
    notes = []
    if panel.chat and not there.has_chat_template:
        notes.append(f"{side.title}: it has no chat template, so its prompts are plain text.")
        display.say(notes[0])
    scored = panel.scored(there)
    cut = [
        f"{found['examples']:,} of {len(one.examples):,} of {one.task.name}"
        for one in scored
        if (found := one.encoded.truncated)["examples"]
    ]
    if cut:
        notes.append(f"{side.title}: prompts were cut to fit its length: {', '.join(cut)}.")
        display.say(notes[-1])
    details = {"given": side.given, "title": side.title, "kind": side.kind, **there.details}
    return scored, details, notes
