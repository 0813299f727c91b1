"""Further scores of the saved stages of a run: another prompt, other tasks, or another way of scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import (
    Reading,
    own_reading,
    reading_of,
    scored_split,
    scored_tasks,
    title,
)
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking, reading_settings
from forgetmenot.evaluation.watched import divided, load_benchmarks
from forgetmenot.methods import Method
from forgetmenot.metrics import margin_of
from forgetmenot.paths import file_name
from forgetmenot.record.assemble import AskedTask, reading, recovery
from forgetmenot.record.layout import CONFIG, PREDICTIONS, READINGS, RESULTS
from forgetmenot.record.predictions import Predictions, read_predictions
from forgetmenot.record.result_schema import RecoveryOf, SavedReading
from forgetmenot.report.html import write_report
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import Plan, data_folder, make_plan
from forgetmenot.runs.realign import check_realign, realigned
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.saved import open_saved, other_than_begun, take_up
from forgetmenot.tasks import Task, fingerprint

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session

NAMED_BY = (
    "metric",
    "version",
    "prompt_hash",
    "demonstrations",
    "scoring",
    "normalization",
    "calibration",
    "n",
)
"""What tells a reading from others, beside the tasks' own rows."""


def rescore(
    run_dir: str | Path,
    tasks: Sequence[str] = (),
    prompt: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> tuple[Path, SavedReading]:
    """Score every stage of a run whose weights are still there by another prompt, or on other tasks.

    Args:
        run_dir: The run's directory.
        tasks: Names, suites or task files, or lm-eval's tasks; the run's own if empty.
        prompt: A variant for all of them; the run's own if None.
        settings: What else differs from the run's own reading: an entry of `evaluation.readings`.
        data_dir: The folder of public data sets; the run's own if None.
        console: Where to show progress.

    Returns:
        The file under readings/ that the reading is in, and the reading: as in results.json, with its
        `tasks` and `stages`.

    Raises:
        UserError: If this is no run, or a task or variant does not exist.
    """
    directory = RunDirectory(Path(run_dir))
    config = read_resolved(directory.path / CONFIG)
    if data_dir is not None:
        config = config.model_copy(update={"data_dir": str(data_dir)})
    with opened(directory, console) as display:
        load = ReceiptLoader(config, directory)
        plan = make_plan(config, load)
        own_prompt = prompt is None and "prompt" not in (settings or {})
        _check_data(directory, plan, display, named=bool(tasks), own_prompt=own_prompt)
        named = _named(config, load, tasks) if tasks else plan.scored
        asked = [task for task in named if scored_split(config.evaluation, task)]
        if not asked:
            raise UserError(f"--tasks: none of {', '.join(tasks)} has a {config.evaluation.split} split.")
        chosen = _reading(config.asking, asked, prompt, settings or {})
        for note in chosen.notes:
            display.say(note)
        if chosen.realign:
            check_realign(plan.method, config.method.name)
        session = open_saved(directory, config, display)
        learner, longest = session.learner, session.max_length
        scored = scored_tasks(config.asking, chosen, asked, learner, longest)
        session.examine(scored[0].first_sequences())
        answers = []
        for number, row in enumerate(plan.rows):
            due = [one for one in scored if not 0 < number < one.begins(plan.rows)]
            answers.append(_answers(directory, session, plan.method, row.name, due, display) if due else {})
        names = [one.task.name for one in scored]
        recorded = [one.asked([stage.get(one.task.name) for stage in answers], plan.rows) for one in scored]
        metrics = {one.task.name: one.task.metric for one in scored}
        found = {
            **reading(plan.rows, recorded, metrics, names),
            **_recovered(directory, session, plan, asked, recorded, metrics),
        }
        stages = [row.name for row in plan.rows]
        measured = cast(SavedReading, {"tasks": names, "stages": stages, **found})
        about = [{key: measured.get(key) for key in NAMED_BY}, [fingerprint(one.task) for one in scored]]
        name = f"{READINGS}/{file_name('-'.join([chosen.name or 'own', *names]), about)}.json"
        directory.write_json(name, measured)
        if ranks.writes() and (directory.path / RESULTS).exists():
            write_report(directory.path)
    return directory.path / name, measured


def _check_data(
    directory: RunDirectory, plan: Plan, display: Display, *, named: bool, own_prompt: bool
) -> None:
    """Hold the run's tasks and prompts against those that it began with.

    Args:
        directory: The run's.
        plan: What its config amounts to now.
        display: Where to say what is another now, where the tasks are named and so taken as they are.
        named: Whether they are.
        own_prompt: Whether they are asked by the run's own prompts.

    Raises:
        UserError: Something is another now, and what is scored is not named.
    """
    begun = begun_with(directory)
    other = other_than_begun(begun if own_prompt else {**begun, "prompts": {}}, plan)
    if other is None:
        return
    sentence = f"{directory.path}: {other} is other than the run began with"
    if not named:
        raise UserError(
            f"{sentence}, so that scores could not stand beside the run's. Put it back, or score what is "
            "there now by naming it: --tasks, and --prompt for a prompt."
        )
    display.say(f"{sentence}; these scores are of what is there now.")


def _named(config: RunConfig, load: ReceiptLoader, names: Sequence[str]) -> list[Task]:
    """Tasks by name, lm-eval's last."""
    ours, benchmarks = divided(names)
    folder = data_folder(config)
    return [*load(ours, folder), *load_benchmarks(benchmarks, folder, config.evaluation.limit, "--tasks")]


def _reading(
    asking: Asking, tasks: Sequence[Task], prompt: str | None, settings: Mapping[str, Any]
) -> Reading:
    """The requested reading; the run's own if none is requested."""
    named = {**settings, **({} if prompt is None else {"prompt": prompt})}
    if not named:
        return own_reading(asking, tasks)
    how = reading_settings(named, "reading")
    return reading_of(asking, how, tasks, "reading", title(how))


def _recovered(
    directory: RunDirectory,
    session: Session,
    plan: Plan,
    tasks: Sequence[Task],
    recorded: Sequence[AskedTask],
    metrics: Mapping[str, str],
) -> RecoveryOf:
    """What the reading brings back of the run's own tasks, held against the run's own answers."""
    config, own = session.config, {task.name for task in plan.scored}
    again = [task for task in tasks if task.name in own]
    plain = scored_tasks(config.asking, plan.readings[0], again, session.learner, session.max_length)
    there = [read_predictions(directory.stage(row.name) / PREDICTIONS) for row in plan.rows]
    columns = {
        one.task.name: one.asked([stage.get(one.task.name) for stage in there], plan.rows).column(
            one.task.metric
        )
        for one in plain
    }
    margins = {
        name: margin_of(name, metrics[name], config.evaluation.margins) for name in columns if name in metrics
    }
    return recovery(plan.rows, columns, recorded, metrics, margins)


def _answers(
    directory: RunDirectory,
    session: Session,
    method: Method,
    stage: str,
    scored: Sequence[ScoredTask],
    display: Display,
) -> dict[str, Predictions]:
    """The answers of one stage; none where its weights are gone."""
    again = any(len(one.realign) for one in scored)
    if not take_up(directory, session, method, stage, trainable=again):
        return {}
    total = sum(one.count() for one in scored)
    with method.answering(session.learner), display.progress(f"{stage}: scoring", total) as advance:
        found = {}
        for one in scored:
            with realigned(session, one):
                found[one.task.name] = evaluate(session.learner, method, one, advance)
        return found
