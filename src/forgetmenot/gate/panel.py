"""The panel of a check: the tasks that both sides are asked, in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.readings import own_reading, scored_split
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking
from forgetmenot.evaluation.watched import divided, load_benchmarks
from forgetmenot.gate.opened import Opened
from forgetmenot.metrics import margin_of
from forgetmenot.probes import Probe, RunTask, make_probe
from forgetmenot.probes.shared.lm_eval_tasks import trace_tasks
from forgetmenot.prompting import Prompt
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.report.beforehand import AtHand
from forgetmenot.runs.display import Display
from forgetmenot.runs.plan import check_margins
from forgetmenot.tasks import Task, load_tasks, refuse_twice

if TYPE_CHECKING:
    from forgetmenot.evaluation.readings import Reading
    from forgetmenot.gate.endpoint import Server

GENERAL_LIMIT = 300  # ours


@dataclass(frozen=True)
class Panel:
    """What both sides are asked.

    Attributes:
        asking: How.
        tasks: Those with examples to score, in the order given.
        chat: Whether prompts are put as a user's turn, by the chat template of each side that has one.
        margins: Task to ε.
        probes: What is measured beside the tasks, by name.
        by_text: Whether a side is an endpoint, so that all are asked by text; see `gate.by_text`.
    """

    asking: Asking
    tasks: tuple[Task, ...]
    chat: bool
    margins: Mapping[str, float]
    probes: Mapping[str, Probe]
    by_text: bool = False

    def at_hand(self, scored: Sequence[ScoredTask]) -> list[AtHand]:
        """What each task will be judged on."""
        return [one.at_hand(self.margins[one.task.name]) for one in scored]

    def scored(self, opened: Opened) -> list[ScoredTask]:
        """The tasks in a side's own tokens."""
        reading = own_reading(self.asking, self.tasks)
        if self.chat and opened.has_chat_template:
            reading = _in_chat(reading, self.tasks)
        return opened.scored(self.asking, reading, self.tasks, by_text=self.by_text)

    def for_endpoints(self, servers: Sequence[Server]) -> tuple[Panel, list[str]]:
        """The panel as these endpoints can be asked too, and what the user should know of that.

        Raises:
            UserError: If one of its tasks cannot be put to an endpoint.
        """
        from forgetmenot.gate.by_text import asked_alike

        if self.probes:
            raise UserError(
                f"--probes: {', '.join(self.probes)} looks into a model, which an endpoint does not let it; "
                "leave --probes out, or check the model's files instead of an endpoint."
            )
        asking, notes = asked_alike(self.asking, self.tasks, servers, chat=self.chat)
        return replace(self, asking=asking, by_text=True), notes


def load_panel(
    names: Sequence[str],
    data_dir: Path | None,
    asking: Asking,
    margin: float | Mapping[str, float] | None,
    *,
    chat: bool = False,
    probes: Sequence[str | Mapping[str, Any]] = (),
    max_length: int = 1024,
) -> Panel:
    """Load the tasks, and see that each can be asked and judged.

    Args:
        names: Names of tasks and suites, paths to task files, and names of lm-evaluation-harness's; where
            there are none, those of the probe `general`, `GENERAL_LIMIT` examples each.
        data_dir: The folder of public data; None for the hub.
        asking: How they are put, and how many examples of each.
        margin: As `metrics.margin_of` takes it.
        chat: See `Panel`.
        probes: Names, or maps with a name and options, as in `evaluation.probes`.
        max_length: The most tokens of a probe's prompt.

    Raises:
        UserError: If a task does not exist, has nothing to score, no such prompt, or a margin is of no task.
    """
    if not names:
        asking, found = _general(data_dir, asking)
    else:
        ours, benchmarks = divided(names)
        found = load_tasks(ours, data_dir) if ours else []
        found += load_benchmarks(benchmarks, data_dir, asking.evaluation.limit, "--tasks")
        refuse_twice([task.name for task in found])
    tasks = tuple(found)
    if unasked := next((task for task in tasks if not scored_split(asking.evaluation, task)), None):
        raise UserError(f"check: {unasked.name} has no score split, so it cannot be asked; leave it out.")
    for name in asking.prompt if isinstance(asking.prompt, Mapping) else ():
        if name not in (there := [task.name for task in tasks]):
            raise UserError(f"--prompt: there is no task {name!r} here. {nearest(name, there)}")
    check_margins(margin, tasks, "--margin")
    reading = own_reading(asking, tasks)
    margins = {task.name: margin_of(task.name, task.metric, margin) for task in tasks}
    return Panel(asking, tasks, chat, margins, _probes(probes, data_dir, asking, tasks, reading, max_length))


def _probes(
    wanted: Sequence[str | Mapping[str, Any]],
    data_dir: Path | None,
    asking: Asking,
    tasks: Sequence[Task],
    reading: Reading,
    max_length: int,
) -> dict[str, Probe]:
    """The probes, with the tasks of the panel."""
    given = [{"name": one} if isinstance(one, str) else dict(one) for one in wanted]
    found = {
        str(one["name"]): make_probe(
            str(one["name"]), {key: value for key, value in one.items() if key != "name"}, data_dir
        )
        for one in given
    }
    run_tasks = [
        RunTask(task, reading.prompts[task.name], scored_split(asking.evaluation, task), max_length)
        for task in tasks
    ]
    for probe in found.values():
        probe.take_tasks(run_tasks)
    return found


def answers_of(opened: Opened, scored: Sequence[ScoredTask], display: Display) -> dict[str, Predictions]:
    """What a side answers to every task."""
    opened.examine(scored)
    total = sum(one.count() for one in scored)
    with display.progress(f"{opened.identity['title']}: scoring", total) as advance:
        return {one.task.name: opened.answers(one, advance) for one in scored}


def again(
    opened: Opened, scored: Sequence[ScoredTask], answers: Mapping[str, Predictions]
) -> dict[str, AskedAgain]:
    """Each task's last examples asked once more in another order and batch: the noise of the path (A/A)."""
    return {one.task.name: opened.again(one, answers[one.task.name]) for one in scored}


def _general(data_dir: Path | None, asking: Asking) -> tuple[Asking, list[Task]]:
    """The tasks of the probe `general`, at most so many examples of each."""
    from forgetmenot.probes.shared.benchmarks import general_folder

    limit = asking.evaluation.limit or GENERAL_LIMIT
    asking = replace(asking, evaluation=asking.evaluation.model_copy(update={"limit": limit}))
    try:
        names = trace_tasks(general_folder(data_dir))
        return asking, list(load_benchmarks(names, data_dir, limit, "--tasks"))
    except UserError as error:
        raise UserError(
            "check: name what to ask by --tasks. Without it the tasks of the probe `general` are asked, and "
            f"these cannot be had: {error}"
        ) from error


def _in_chat(reading: Reading, tasks: Sequence[Task]) -> Reading:
    """Prompts as a user's turn; those of benchmarks are lm-eval's own, and stay, as plain texts do."""
    kept = {task.name for task in tasks if isinstance(task, Benchmark) or task.kind == "text"}
    prompts = {name: prompt if name in kept else _as_turn(prompt) for name, prompt in reading.prompts.items()}
    return replace(reading, prompts=prompts)


def _as_turn(prompt: Prompt) -> Prompt:
    return prompt if prompt.chat else replace(prompt, chat=True, separator="")
