"""What can be done with the saved stages of a run: score them anew, or export one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.evaluation_config import ReadingSettings, reading_settings
from forgetmenot.methods import Method
from forgetmenot.models import has_weights, merged, without_bars
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.evaluate import Predictions, Question, ask
from forgetmenot.runs.loop import BASE
from forgetmenot.runs.method_state import load_method_state
from forgetmenot.runs.plan import data_folder, make_plan, questions_of, scored_split
from forgetmenot.runs.readings import own_reading, reading_of, title
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.results import reading
from forgetmenot.runs.session import Session, open_session


def rescore(
    run_dir: Path,
    tasks: Sequence[str] = (),
    prompt: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Put another prompt or other tasks to every stage of a run whose weights are still there.

    Args:
        run_dir: The run's directory.
        tasks: Names, suites or task files; the run's own if empty.
        prompt: A variant for all of them; the run's own if None.
        settings: What else differs from the run's own reading: an entry of `evaluation.readings`.
        console: Where to show progress.

    Returns:
        The file under readings/ that the reading is in, and the reading: as in results.json, with its
        `tasks` and `stages`.

    Raises:
        UserError: If this is no run, or a task or variant does not exist.
    """
    directory = RunDirectory(run_dir)
    config = read_resolved(directory.path / "config.yaml")
    ranks.join()
    load = ReceiptLoader(config, directory)
    plan = make_plan(config, load)
    found = load(tasks, data_folder(config)) if tasks else plan.scored
    asked = [task for task in found if scored_split(config, task)]
    if not asked:
        raise UserError(f"--tasks: none of {', '.join(tasks)} has a {config.evaluation.split} split.")
    named = {**(settings or {}), **({} if prompt is None else {"prompt": prompt})}
    how = reading_settings(named, "reading") if named else ReadingSettings.model_construct()
    chosen = reading_of(config, how, asked, "reading", title(how)) if named else own_reading(config, asked)
    asked = [task for task in asked if task.name in chosen.prompts]
    console = console if console and ranks.writes() else Console(quiet=True)
    with directory.locked(), Display(console) as display:
        session = open_saved(directory, config)
        tokenizer, longest = session.learner.tokenizer, session.max_length
        asking = questions_of(config, chosen, asked, tokenizer, longest)
        session.examine([s for one in asking[0].encoded[:32] for s in one.candidates or (one.answer,)])
        answers = [_answer(directory, session, plan.method, row.name, asking, display) for row in plan.rows]
    names = [task.name for task in asked]
    measured = {
        "tasks": names,
        "stages": [row.name for row in plan.rows],
        **reading(plan.rows, asking, answers, {task.name: task.metric for task in asked}, names),
    }
    name = f"readings/{'-'.join([chosen.name or 'own', *names])}.json"
    directory.write_json(name, measured)
    return directory.path / name, measured


def export(run_dir: Path, stage: str, out: Path) -> None:
    """Write a stage as one model that Transformers loads by itself, with its tokenizer.

    Args:
        run_dir: The run's directory.
        stage: Its number or name.
        out: A new directory.

    Raises:
        UserError: If there is no such stage, its weights are gone, the method answers with no single model,
            or `out` has something in it or cannot be made.
    """
    directory = RunDirectory(run_dir)
    config = read_resolved(directory.path / "config.yaml")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new directory.")
    plan = make_plan(config)
    names = [row.name for row in plan.rows]
    found = [name for k, name in enumerate(names) if stage in (name, str(k), f"{k:02d}")]
    if not found:
        raise UserError(f"--stage: this run has no stage {stage!r}. Known: {', '.join(names)}.")
    if found[0] != BASE and plan.method.not_one_model:
        raise UserError(
            f"This run's method, {config.method.name}, {plan.method.not_one_model} "
            f"What it has lies in {directory.stage(found[0])}."
        )
    if found[0] != BASE and config.adapter.kind == "prompt":
        raise UserError(
            "A soft prompt stands before a model and is no part of it, so no single model answers like this "
            f"stage. The prompt lies in {directory.stage(found[0]) / 'prompt'}."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); give another directory.") from error
    session = open_saved(directory, config)
    if found[0] != BASE:
        session.to_stage(directory.stage(found[0]), trainable=False)
        load_method_state(plan.method, directory.stage(found[0]))
    with plan.method.answering(session.learner), without_bars():
        merged(session.learner.model).save_pretrained(out)
    session.learner.tokenizer.save_pretrained(out)


def open_saved(directory: RunDirectory, config: RunConfig) -> Session:
    """The model of a run, computing as the run began."""
    return open_session(config, begun_with(directory).get("threads"))


def take_up(directory: RunDirectory, session: Session, method: Method, stage: str) -> bool:
    """Go to the weights of a stage, and to what the method knew then; whether they are still there."""
    if stage == BASE:
        session.to_base()
    elif has_weights(directory.stage(stage)):
        session.to_stage(directory.stage(stage), trainable=False)
        load_method_state(method, directory.stage(stage))
    else:
        return False
    return True


def _answer(
    directory: RunDirectory,
    session: Session,
    method: Method,
    stage: str,
    questions: Sequence[Question],
    display: Display,
) -> dict[str, Predictions]:
    """The answers of one stage; none where its weights are gone."""
    if not take_up(directory, session, method, stage):
        return {}
    total = sum(one.count() for one in questions)
    with method.answering(session.learner), display.progress(f"{stage}: scoring", total) as advance:
        return {one.task.name: ask(session.learner, method, one, advance) for one in questions}
