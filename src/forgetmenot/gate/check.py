"""`fmn check`: what a tuned model lost against its base, and whether it may ship.

Each side is asked in turn, the base first, so that one model at a time is in memory. Several tuned sides are
a chain (a stage, its export, its quantized file): each is judged against the one before, which tells what was
lost in training from what was lost in merging or rounding, and the last against the base, which decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.gate.baseline import Noise, asked, read_baseline, write_baseline
from forgetmenot.gate.early import TEST, answers_until_decided, same_examples
from forgetmenot.gate.flips import flips
from forgetmenot.gate.opened import Loaded, Opened, opened_side, with_zero_delta
from forgetmenot.gate.panel import Panel, again, answers_of, load_panel
from forgetmenot.gate.settings import check_margin
from forgetmenot.gate.sides import Side, find_side
from forgetmenot.metrics import judge, metric_named
from forgetmenot.metrics.verdicts import Decision
from forgetmenot.paths import at_home, file_name
from forgetmenot.probes import Part
from forgetmenot.prompting import PromptVariants
from forgetmenot.record.predictions import Predictions, column, require_finite
from forgetmenot.report.beforehand import can_be_shown
from forgetmenot.report.check.files import write_check
from forgetmenot.report.check.terminal import print_check
from forgetmenot.report.screen import Screen
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.probing import measure_probe, table

KEPT, FORGOTTEN, CANNOT_TELL = 0, 1, 3
"""What a check exits with, where nothing went wrong."""

Probed = Callable[[Opened, int], Mapping[str, Sequence[Part]]]
"""What the probes find of a side, by its number."""

WHOLE = 2**20
"""The tokens that a prompt may have beside an endpoint, which gets it whole: as many as the model takes."""

OTHER_TOKENS = "Their tokenizers divide the texts otherwise, so that losses per token are of different units."


@dataclass(frozen=True)
class Check:
    """A finished check.

    Attributes:
        path: The directory of its files.
        content: That of check.json.
    """

    path: Path
    content: dict[str, Any]

    @property
    def status(self) -> int:
        """0: all kept; 1: something was forgotten; 3: nothing was, but of some task too little is known."""
        status: int = self.content["status"]
        return status

    def print(self, console: Console | None = None) -> None:
        """Print the verdicts."""
        print_check(self.content, console or Screen())


def check(
    base: str,
    *tuned: str,
    tasks: Sequence[str] = (),
    data_dir: str | Path | None = None,
    prompt: PromptVariants = "default",
    margin: float | Mapping[str, float] | None = None,
    limit: int | None = None,
    chat: bool = False,
    baseline: str | Path | None = None,
    sequential: bool = False,
    probes: Sequence[str | Mapping[str, Any]] = (),
    output: str | Path | None = None,
    console: Console | None = None,
) -> Check:
    """Ask a base and what was tuned from it the same questions, and judge every task.

    Args:
        base: A hub id, a directory, an adapter's directory, RUN_DIR:STAGE, a .gguf file, or an
            endpoint's URL.
        tuned: The same; several are a chain, of which each is also judged against the one before.
        tasks: Names, suites or task files.
        data_dir: The folder of public data; None for the hub.
        prompt: A variant, or a map task → variant.
        margin: ε of all tasks, or a map from tasks or metrics; each metric's own if None.
        limit: The most examples of a task.
        chat: Put prompts by the chat template of each side that has one.
        baseline: A file that keeps the base's answers; it is written if it is not there.
        sequential: Stop asking the tuned side as soon as every task is decided.
        probes: What is measured beside the tasks, as in `evaluation.probes`; `drift` is meant for this.
        output: A directory; named by the two sides and a hash if None.
        console: Where to show progress.

    Raises:
        UserError: If a side, a task or a setting is not there or does not fit.
    """
    margin = check_margin(margin)
    first = find_side(str(base))
    others = [find_side(str(one), first.model) for one in tuned]
    if not others:
        raise UserError("check: name a tuned model beside the base.")
    if sequential and len(others) > 1:
        raise UserError("check: --sequential is for one tuned model; a chain asks every example of each.")
    sides = [first, *others]
    asking = Asking(EvaluationSettings(limit=limit), prompt)
    training = next((one.config.training for one in sides if one.config is not None), TrainingSettings())
    panel = load_panel(
        tasks, _folder(data_dir), asking, margin, chat=chat, probes=probes, max_length=training.max_length
    )
    said: list[str] = []
    if servers := [one.server for one in sides if one.server is not None]:
        panel, said = panel.for_endpoints(servers)
        training = training.model_copy(update={"max_length": WHOLE})
    directory = RunDirectory(_directory(sides, panel, output))
    notes = [note for side in sides for note in side.notes] + said
    with opened(directory, console) as display:
        for note in notes:
            display.say(note)
        kept = at_home(str(baseline), "--baseline") if baseline is not None else None
        adapted = first.server is None and any(
            one.adapter is not None or one.run is not None for one in others
        )
        names = [f"{k:02d}-{side.title}" for k, side in enumerate(sides)]

        def probed(there: Opened, number: int) -> dict[str, list[Part]]:
            if not panel.probes:
                return {}
            assert isinstance(there, Loaded)  # an endpoint is refused where there are probes
            learner, method = there.session.learner, there.method
            return {
                name: measure_probe(probe, name, learner, method, names[number], names[0], directory)
                for name, probe in panel.probes.items()
            }

        answered = [_ask_base(first, panel, training, display, probed, kept, adapted=adapted)]
        before = answered[0].answers if sequential else None
        for number, side in enumerate(others, start=1):
            answered.append(_ask(side, panel, training, display, number, probed, before))
        notes += [note for one in answered for note in one.notes]
        tables = {
            name: table(probe, names, [[asdict(part) for part in one.probes[name]] for one in answered])
            for name, probe in panel.probes.items()
        }
        content = {**_content(panel, answered), "probes": tables, "notes": notes}
        write_check(directory, content)
    return Check(directory.path, content)


@dataclass(frozen=True)
class _Asked:
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


def _ask_base(
    side: Side,
    panel: Panel,
    training: TrainingSettings,
    display: Display,
    probed: Probed,
    baseline: Path | None,
    *,
    adapted: bool,
) -> _Asked:
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
            return _Asked(side, details, scored, answers, notes, noise, probes=probed(there, 0))
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
    return _Asked(side, details, scored, answers, notes, noise, probes=found)


def _ask(
    side: Side,
    panel: Panel,
    training: TrainingSettings,
    display: Display,
    number: int,
    probed: Probed,
    before: Mapping[str, Predictions] | None,
) -> _Asked:
    """A tuned side's answers: to all examples, or, with the base's answers, until every task is decided."""
    with opened_side(side, training, display) as there:
        scored, details, notes = _prepared(side, panel, there, display)
        with there.answering():
            decisions: Mapping[str, Decision] = {}
            if before is None:
                answers = answers_of(there, scored, display)
            else:
                answers, decisions = answers_until_decided(there, scored, before, panel.margins, display)
        return _Asked(
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
    details = {"given": side.given, "title": side.title, "kind": side.kind, **there.details}
    return panel.scored(there), details, notes


def _content(panel: Panel, sides: Sequence[_Asked]) -> dict[str, Any]:
    """What check.json holds."""
    base, last = sides[0], sides[-1]
    steps = [
        {
            "before": one.details["title"],
            "after": other.details["title"],
            "kind": other.side.kind,
            "verdicts": _judged(panel, one, other),
        }
        for one, other in itertools.pairwise(sides)
    ]
    verdicts = _judged(panel, base, last) if len(sides) > 2 else steps[0]["verdicts"]
    decisions = [one["decision"] for one in verdicts.values()]
    status = FORGOTTEN if "forgotten" in decisions else CANNOT_TELL if "cannot tell" in decisions else KEPT
    return {
        "version": 1,
        "status": status,
        "base": dict(base.details),
        "tuned": [dict(one.details) for one in sides[1:]],
        "chat": panel.chat,
        "tasks": {
            one.task.name: {
                "metric": one.task.metric,
                "metric_version": metric_named(one.task.metric).version,
                "n": len(one.examples),
                "prompt": one.prompt.name,
                "prompt_hash": one.prompt.hash,
                "margin": panel.margins[one.task.name],
                "majority": one.majority,
                **one.described,
            }
            for one in base.scored
        },
        "verdicts": verdicts,
        "steps": steps,
        "asked_again": base.noise.get("again", {}),
        "control": base.noise.get("control", {}),
        "flips": {one.task.name: flips(one, base.answers, last.answers) for one in base.scored},
    }


def _judged(panel: Panel, one: _Asked, other: _Asked) -> dict[str, Any]:
    """The verdict on each task between two sides, as results.json would hold it."""
    pairs = {
        task.name: (same_examples(one.answers[task.name], other.answers[task.name]), other.answers[task.name])
        for task in panel.tasks
    }
    columns = {task.name: column(task.metric, pairs[task.name]) for task in panel.tasks}
    found = {name: verdict.to_json() for name, verdict in judge(columns, panel.margins).items()}
    for name, (before, after) in pairs.items():
        if after.not_finite:
            found[name]["reason"] = f"{other.side.title}: {after.not_finite}"
        elif before.tokens != after.tokens:  # only of losses are the tokens counted
            found[name] |= {"decision": "cannot tell", "needed": None, "reason": OTHER_TOKENS}
        elif name in other.decisions:  # interval and p are not valid where one stops when one likes
            undecided = {"interval": None, "p": None, "p_holm": None, "needed": None, "test": TEST}
            found[name] |= {"decision": other.decisions[name], "lower_within_margin": False, **undecided}
    return found


def _folder(data_dir: str | Path | None) -> Path | None:
    if data_dir is None:
        return None
    folder = at_home(str(data_dir), "--data-dir")
    if not folder.is_dir():
        raise UserError(f"--data-dir: there is no folder {str(data_dir)!r}.")
    return folder


def _directory(sides: Sequence[Side], panel: Panel, output: str | Path | None) -> Path:
    if output is not None:
        return at_home(str(output), "--output")
    about = [[one.given for one in sides], sorted(panel.margins.items()), panel.chat, str(panel.asking)]
    return Path("checks") / file_name("-".join([sides[0].title, "to", sides[-1].title]), about)
