"""SELF-GUIDE on a task: the model writes its own rows, a task file is made of them, and trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.config import RunConfig, load_config, put
from forgetmenot.errors import UserError
from forgetmenot.evaluation.scoring import SPARE_TOKENS
from forgetmenot.models.settings import BUNDLED
from forgetmenot.prompting import Demonstrations, DemonstrationSettings, Encoder, Prompt, choose_prompt
from forgetmenot.report.screen import Screen
from forgetmenot.report.synthesis_tables import print_synthesis, synthesis_page
from forgetmenot.runs.api import Run, run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder
from forgetmenot.synthesis.data_set import (
    answer_column,
    card,
    in_context_prompt,
    row_of,
    run_config,
    task_file,
)
from forgetmenot.synthesis.draw_log import DrawLog
from forgetmenot.synthesis.funnel import Synthesis
from forgetmenot.synthesis.self_guide import synthesize_examples
from forgetmenot.synthesis.settings import SynthesisSettings, synthesis_settings
from forgetmenot.synthesis.subject import Request, Subject, asked_by
from forgetmenot.synthesis.writer import LearnerWriter, Writer
from forgetmenot.synthesis.written_form import write_input
from forgetmenot.tasks import Example, Task, fingerprint, load_tasks
from forgetmenot.tasks.splits import TOO_FEW_TO_CARVE
from forgetmenot.tasks.yaml_file import write_yaml
from forgetmenot.trials.synthesis_folder import CARD, CONFIG, CONTENT, DRAWN, TASK, check_same, withdraw

OWN_ARGUMENTS = ("model", "tasks", "prompt", "seed")
"""Keys of a run's config that `fmn synthesize` has arguments for."""
READ_BY = {
    "choice": "the label that the first line with something in it names, as a whole word and undenied "
    "(docs/prompts.md); the run is scored by the label that stands last in the text (last-label)",
    "answer": "the whole text, up to a stop string",
}


@dataclass(frozen=True)
class WrittenTask:
    """What a synthesis left.

    Attributes:
        path: The directory with task.yaml, train.jsonl, run.yaml, synthesis.json, synthesis.html, README.md.
        found: The content of synthesis.json.
        run: The run that was trained on it; None where none was asked for.
    """

    path: Path
    found: dict[str, Any]
    run: Run | None = None

    def print(self, console: Console | None = None) -> None:
        """Print the funnel."""
        print_synthesis(self.found, console or Screen())


def synthesize(
    model: str | Mapping[str, Any],
    task: str,
    output: str | Path,
    *,
    demonstrations: int = 3,
    instruction: str | None = None,
    prompt: str = "default",
    data_dir: str | Path | None = None,
    seed: int = 42,
    settings: Mapping[str, Any] | None = None,
    train: bool = False,
    console: Console | None = None,
) -> WrittenTask:
    """Let a model write a training set for a task from a few demonstrations, and fine-tune it on that.

    What was drawn before in this directory is not drawn again.

    Args:
        model: As a config's `model`.
        task: A name or the path of a task file.
        output: The directory.
        demonstrations: How many solved examples the model sees: those that come with the task, or drawn from
            its train split.
        instruction: What the task asks, in words; the task's own where None.
        prompt: The task's variant.
        data_dir: A folder with public data sets; None for the hub.
        seed: Of all draws and of the run.
        settings: Keys of `SynthesisSettings`, and dotted keys of the run's config.
        train: Whether the run is done.
        console: Where to show progress.

    Raises:
        UserError: If anything named does not exist or fit, or no row is left.
    """
    of_run = {k: v for k, v in (settings or {}).items() if k.split(".")[0] in RunConfig.model_fields}
    for key in of_run:
        if key.split(".")[0] in OWN_ARGUMENTS and not key.startswith("model."):
            raise UserError(f"--set {key}: `fmn synthesize` has an argument of its own for this; use that.")
    asked = synthesis_settings({k: v for k, v in (settings or {}).items() if k not in of_run})
    named: dict[str, Any] = {"model": model, "tasks": [task], "seed": seed, "prompt": prompt}
    config = load_config(
        None, {**named, **({} if data_dir is None else {"data_dir": str(data_dir)}), **of_run}
    )
    tasks = load_tasks(config.tasks, data_folder(config))
    if len(tasks) > 1:
        raise UserError(
            f"{task} is a suite of {len(tasks)} tasks, and rows are written for one: name one of "
            f"{', '.join(one.name for one in tasks)}."
        )
    (loaded,) = tasks
    subject = Subject(
        loaded,
        choose_prompt(loaded, prompt),
        _demonstrations(loaded, demonstrations, seed),
        loaded.instruction if instruction is None else instruction,
    )
    full = asked.of(loaded.kind)
    directory = RunDirectory(Path(output))
    from forgetmenot.runs.session import open_session

    with opened(directory, console, "synthesize") as display:
        session = open_session(config)
        revision, positions = session.identity["model_revision"], session.learner.max_positions
        check_same(directory.path, loaded.name, loaded.kind, config.model.title, revision)
        display.say(session.computing_in_words)
        if positions is not None and positions < full.context_tokens:
            full = full.model_copy(update={"context_tokens": positions})
            display.say(f"context_tokens: {positions:,}, since the model has no more positions.")
        for note in loaded.notes:
            display.say(f"{loaded.name}: {note}")
        encoder = Encoder(loaded, subject.guided, session.learner.tokenizer, session.max_length)
        session.examine([one.answer for one in encoder.encode_all(subject.demonstrations)[:]])
        writer = LearnerWriter(session.learner)
        drawn_by = "/".join(str(session.identity[key]) for key in ("model_revision", "dtype", "precision"))
        log = DrawLog(directory.path / DRAWN, drawn_by, display.say)
        began = time.monotonic()
        found = synthesize_examples(writer, subject, full, seed=seed, log=log, progress=display.progress)
        display.say(_rate(log, found, time.monotonic() - began))
        in_context, shown = _in_context(subject, found, full, writer, positions)
        content = {
            **_content(config, subject, full, found, revision),
            "in_context": shown,
        }
        withdraw(directory.path)
        _tell(directory, subject, found, content)
        if not found.rows:
            dropped = "; ".join(f"{one.name}: {one.reasons}" for one in found.funnel if one.reasons)
            raise UserError(
                f"no row is left of {len(found.candidates)} inputs, so no task is written. Dropped were, of "
                f"{dropped}. What helps, in this order: {found.remedies}. "
                f"{directory.path / 'synthesis.html'} shows what was written."
            )
        _write(directory, subject, found, content, task_file(subject, _splits(subject, found), in_context))
        fine_tune = _fine_tune(config, subject, directory.path, positions, in_context is not None, of_run)
        directory.write_text(CONFIG, write_yaml(fine_tune))
        if not (loaded.score or loaded.select) and len(found.rows) < TOO_FEW_TO_CARVE:
            display.say(
                f"{CONFIG} has nothing to be scored on: a tenth of the model's rows is held out only from "
                f"{TOO_FEW_TO_CARVE} on, and there are {len(found.rows)}. Raise --set rounds for more rows, "
                "or name real ones in the task file (`data.score`)."
            )
    ran = run(directory.path / CONFIG, console=console) if train else None
    return WrittenTask(directory.path, content, ran)


def _demonstrations(task: Task, count: int, seed: int) -> Sequence[Example]:
    """The first solved examples that come with a task, or some drawn from its train split, labels in turn.

    Raises:
        UserError: There are too few.
    """
    if task.demonstrations:
        return task.demonstrations[:count]
    if task.kind not in ("choice", "answer") or not task.train:
        return ()  # the subject says what is lacking
    try:
        return Demonstrations(task, DemonstrationSettings(count=count, seed=seed)).fixed
    except UserError as error:
        raise UserError(f"--{error}") from error


def _content(
    config: RunConfig, subject: Subject, settings: SynthesisSettings, found: Synthesis, revision: str
) -> dict[str, Any]:
    """What synthesis.json holds."""
    task = subject.task
    labelled = [one for one in found.candidates if one.label is not None]
    counts = found.to_json()
    return {
        "version": 1,
        "task": task.name,
        "kind": task.kind,
        "origin": task.origin,
        "fingerprint": fingerprint(task),
        "model": config.model.title,
        "model_revision": revision,
        "seed": config.seed,
        "prompt": subject.prompt.name,
        "instruction": subject.instruction,
        "settings": settings.model_dump(mode="json"),
        "demonstrations": [
            {"id": one.id, "input": text, "answer": answer}
            for one, text, answer in zip(subject.demonstrations, subject.inputs, subject.answers, strict=True)
        ],
        **counts,
        "missing_labels": [label for label in task.labels if label not in counts["labels"]],
        "as_asked": (
            sum(one.label == one.asked_label for one in labelled) / len(labelled) if labelled else None
        ),
        "read_by": READ_BY[task.kind],
    }


def _in_context(
    subject: Subject, found: Synthesis, settings: SynthesisSettings, writer: Writer, positions: int | None
) -> tuple[Prompt | None, int]:
    """The prompt that shows the rows, as many as fit with the longest input and an answer, and how many."""
    longest_text = min(settings.context_tokens, positions or settings.context_tokens)
    room = longest_text - _of_answer(subject, writer, longest_text)
    known = [*subject.demonstrations, *found.rows]
    longest = max(known, key=lambda one: len(write_input(one, subject.fields)))

    def fits(prompt: Prompt) -> bool:
        return writer.length(asked_by(prompt, longest)) < room

    return in_context_prompt(subject, found.rows, fits)


def _of_answer(subject: Subject, writer: Writer, longest: int) -> int:
    """The tokens kept for an answer, as a run keeps them: a task's most, or the longest label's and more."""
    if subject.task.kind != "choice":
        return min(subject.task.generation.max_new_tokens, longest // 3)
    words = (Request([{"role": "user", "content": one}], False) for one in subject.prompt.choices.values())
    return max(map(writer.length, words)) + SPARE_TOKENS


def _fine_tune(
    config: RunConfig,
    subject: Subject,
    folder: Path,
    positions: int | None,
    in_context: bool,
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of run.yaml, with what the user changed in it."""
    name = config.model.name
    if name not in BUNDLED and Path(name).exists():
        name = str(Path(name).absolute())
    model = {"name": name, **config.model.model_dump(mode="json", exclude_defaults=True, exclude={"name"})}
    output = str((folder / "run").absolute())
    written = run_config(subject, model, output, config.seed, positions, in_context)
    if (data := data_folder(config)) is not None:
        written["data_dir"] = str(data.absolute())
    for key, value in changed.items():
        put(written, key.split("."), value)
    return written


def _splits(subject: Subject, found: Synthesis) -> dict[str, Sequence[Example]]:
    """The rows of each split that has any: those of the model, and the task's real ones."""
    of_split = {"train": found.rows, "select": subject.task.select, "score": subject.task.score}
    return {split: rows for split, rows in of_split.items() if rows}


def _tell(directory: RunDirectory, subject: Subject, found: Synthesis, content: Mapping[str, Any]) -> None:
    """Write what tells of a synthesis, also where no row is left."""
    column = answer_column(subject)
    rows = [row_of(subject, one, column) for one in found.rows]
    candidates = [asdict(one) for one in found.candidates]
    directory.write_text("candidates.jsonl", _lines(candidates))
    directory.write_text("synthesis.html", synthesis_page(content, rows, candidates))
    directory.write_json(CONTENT, content)


def _write(
    directory: RunDirectory,
    subject: Subject,
    found: Synthesis,
    content: Mapping[str, Any],
    task: Mapping[str, Any],
) -> None:
    """Write the task with its rows, and their card."""
    column = answer_column(subject)
    for split, rows in _splits(subject, found).items():
        directory.write_text(f"{split}.jsonl", _lines(row_of(subject, one, column) for one in rows))
    directory.write_text(CARD, card(content))
    directory.write_text(TASK, write_yaml(task))


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _rate(log: DrawLog, found: Synthesis, seconds: float) -> str:
    """How fast it went, and what an earlier call had drawn."""
    said = f"{log.now:,} texts drawn in {seconds:,.0f} s ({log.now / max(seconds, 1e-9):,.1f}/s)"
    return f"{said}; {log.before:,} were drawn before." if log.before else f"{said}."
