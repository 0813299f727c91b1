"""The value of receipts: the small model, the language model, and both together, on every saved stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.config import RunConfig, load_config, put, read_resolved
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import prompt_for, scored_task
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.watched import divided
from forgetmenot.methods import Method, make_method
from forgetmenot.metrics import MatrixRow
from forgetmenot.paths import model_name
from forgetmenot.prompting import Prompt
from forgetmenot.prompting.receipt_prompt import with_receipt
from forgetmenot.receipts.settings import TFIDF
from forgetmenot.record.layout import BASE, CONFIG
from forgetmenot.record.predictions import require_finite
from forgetmenot.report.receipt_tables import receipts_markdown
from forgetmenot.report.wording import listed
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder, make_plan
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.saved import open_saved, take_up
from forgetmenot.tasks import Task
from forgetmenot.trials.receipt_figures import (
    ALONE,
    WITH,
    WITHOUT_CONFIDENCE,
    Case,
    about_case,
    correct_tests,
    figures_of_interpreter,
    figures_row,
    recovery,
)

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.runs.session import Session

MOST_WRITTEN = 100  # tokens of an interpreter's answer, as in the paper
OF_A_RUN = ("receipts", "evaluation", "prompt", "data_dir")


def compare_with_receipts(
    model: str,
    tasks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    interpret: bool = False,
    output: str | Path | None = None,
    console: Console | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Ask a model, or every saved stage of a run, each task alone and with receipts.

    Args:
        model: A bundled model, a hub id, a model directory, or a run's directory.
        tasks: Names, suites or task files; a run's own if empty.
        settings: Dotted keys of the config to values; for a run those of `receipts` and `evaluation` alone.
            `receipts.model` is `tfidf` unless it says otherwise.
        interpret: Also ask for the interpreter's answer, which the model writes.
        output: The directory for receipts.json and receipts.md; by default the run's, or one under runs/.
        console: Where to show progress.

    Returns:
        The path of receipts.json, and its content.

    Raises:
        UserError: If anything that is named is not there or does not fit.
    """
    saved = RunDirectory(Path(model)) if (Path(model) / CONFIG).is_file() else None
    config = _config(model, tasks, settings or {}, saved)
    kind = "interpreted-receipts" if interpret else "receipts"
    named = Path("runs") / f"{model_name(model)}-{kind}-{config.hash}"
    directory = RunDirectory(Path(output or (saved.path if saved else named)))
    question = {"config": config.hash, "tasks": list(tasks), "interpret": interpret}
    _refuse_to_replace(directory, question)
    kept_by_run = saved is not None and output is None
    with opened(directory, console, "run" if kept_by_run else "receipts") as display:
        loader = ReceiptLoader(config, directory)
        names = tasks or [*config.tasks, *divided(config.evaluation.also_score)[0]]
        asked = [
            task for task in loader(names, data_folder(config)) if task.name in loader.receipts and task.score
        ]
        if not asked:
            raise UserError("receipts: none of these tasks chooses among labels and has a score split.")
        for task in asked:
            display.say(f"{task.name}: {task.notes[-1]}")
        plan = make_plan(config) if saved else None
        method = plan.method if plan else make_method("sequential", {}, 0)
        stages = plan.rows if plan else [MatrixRow(BASE, (), follows=False)]
        session = open_saved(saved or directory, config, display)
        cases = [_case(config, loader, task, session, interpret=interpret) for task in asked]
        session.examine(cases[0].scored[ALONE].first_sequences())
        rows: list[dict[str, Any]] = []
        for stage in stages:
            if take_up(saved or directory, session, method, stage.name):
                rows += _ask(session.learner, method, stage.name, cases, display)
            else:
                display.say(f"{stage.name}: its weights are no longer on disk, so it is left out.")
    correct_tests(rows)
    found = {
        "version": 1,
        "asked": question,
        "model": config.model.title,
        "tasks": {case.task.name: about_case(case) for case in cases},
        "stages": [{"name": stage.name, "trains_on": list(stage.trains_on)} for stage in stages],
        "rows": rows,
        "recovery": recovery(stages, rows),
    }
    directory.write_json("receipts.json", found)
    directory.write_text("receipts.md", receipts_markdown(found))
    return directory.path / "receipts.json", found


def _refuse_to_replace(directory: RunDirectory, question: Mapping[str, Any]) -> None:
    """Keep what another question found; the same one may be asked again.

    Raises:
        UserError: If the directory holds the answer to another question.
    """
    before = directory.read_json("receipts.json")
    if before is not None and before.get("asked") != question:
        raise UserError(
            f"{directory.path} holds receipts.json of other tasks or settings, which these would replace: "
            "give another --output, or move the file away."
        )


def _config(
    model: str, tasks: Sequence[str], settings: Mapping[str, Any], saved: RunDirectory | None
) -> RunConfig:
    """The run's config, or a new one, with the settings over it and a small model in any case."""
    if saved is None:
        named = {"model": model, **({"tasks": list(tasks)} if tasks else {}), "receipts.model": TFIDF}
        return load_config(None, {**named, **settings})
    for key in settings:
        if key.split(".")[0] not in OF_A_RUN:
            raise UserError(
                f"{key}: {saved.path} is a run, which keeps its own; set only {listed(OF_A_RUN)}."
            )
    values = read_resolved(saved.path / CONFIG).model_dump(mode="json")
    values["receipts"]["model"] = values["receipts"]["model"] or TFIDF
    for key, value in settings.items():
        put(values, key.split("."), value)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(validation_sentence(error, RunConfig)) from error


def _case(config: RunConfig, loader: ReceiptLoader, task: Task, session: Session, *, interpret: bool) -> Case:
    plain, receipts = loader.plain[task.name], loader.receipts[task.name]
    prompt = prompt_for(plain, config.prompt, config.demonstrations)

    def asked(one: Task, prompt: Prompt) -> ScoredTask:
        return scored_task(config.asking, one, prompt, session.learner, session.max_length)

    scored = {
        ALONE: asked(plain, prompt),
        WITH: asked(task, with_receipt(prompt)),
        WITHOUT_CONFIDENCE: asked(task, with_receipt(prompt, confidence=False)),
    }
    interpreter = asked(task, with_receipt(prompt, interpret=True)) if interpret else None
    return Case(plain, receipts, scored, interpreter)


def _ask(
    learner: Learner, method: Method, stage: str, cases: Sequence[Case], display: Display
) -> list[dict[str, Any]]:
    """Ask every task in every way; one row for each task."""
    rows = []
    total = sum(one.count() for case in cases for one in case.scored.values())
    written = sum(len(case.interpreter.examples) for case in cases if case.interpreter)
    with method.answering(learner):
        with display.progress(f"{stage}: asking", total) as advance:
            for case in cases:
                answers = {how: evaluate(learner, method, one, advance) for how, one in case.scored.items()}
                require_finite(case.task.name, answers.values())
                rows.append({"stage": stage, "task": case.task.name, **figures_row(case, answers)})
        with display.progress(f"{stage}: interpreting", written) as advance:
            for row, case in zip(rows, cases, strict=True):
                if case.interpreter:
                    prompts = [one.prompt for one in case.interpreter.encoded]
                    texts = learner.generate(prompts, MOST_WRITTEN, advance)
                    row["interpreter"] = figures_of_interpreter(case.interpreter, case.shown, texts)
    return rows
