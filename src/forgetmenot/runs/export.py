"""The export of a saved stage as one loadable model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetmenot.config import read_resolved
from forgetmenot.errors import UserError
from forgetmenot.methods import make_method
from forgetmenot.record.layout import BASE, CONFIG, PREDICTIONS
from forgetmenot.record.predictions import read_predictions
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.saved import open_saved

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner
    from forgetmenot.prompting import TokenSequence
    from forgetmenot.runs.session import Session


SAMPLE = 64  # examples of each task on which the exported model is held against the run; ours


def export(run_dir: Path, stage: str, out: Path) -> str:
    """Write a stage as one model that Transformers loads by itself, with its tokenizer.

    Before it is written, it is held against the log-likelihoods that the run kept of the stage.

    Args:
        run_dir: The run's directory.
        stage: Its number or name.
        out: A new directory.

    Returns:
        How far the exported model's log-likelihoods lie from the run's, in a sentence.

    Raises:
        UserError: If there is no such stage, its weights are gone, the method answers with no single model,
            the base model is another than the run began with, the merged model answers otherwise than the
            run did, or `out` has something in it or cannot be made.
    """
    directory = RunDirectory(run_dir)
    config = read_resolved(directory.path / CONFIG)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new directory.")
    method = make_method(config.method.name, config.method.options, config.seed)
    names = [BASE, *begun_with(directory).get("stages", ())]
    found = [name for k, name in enumerate(names) if stage in (name, str(k), f"{k:02d}")]
    if not found:
        raise UserError(f"--stage: this run has no stage {stage!r}. Known: {', '.join(names)}.")
    if found[0] != BASE and method.not_one_model:
        raise UserError(
            f"This run's method, {config.method.name}, {method.not_one_model} "
            f"Its weights are in {directory.stage(found[0])}."
        )
    from forgetmenot.models.adapt import kind_of

    kind = kind_of(config.adapter)
    if found[0] != BASE and kind.not_one_model:
        raise UserError(
            f"{kind.not_one_model} The learned weights are in {directory.stage(found[0]) / kind.folder}."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); give another directory.") from error
    from forgetmenot.models.load import no_progress_bars
    from forgetmenot.models.quantize import merged
    from forgetmenot.runs.method_state import load_method_state

    session = open_saved(directory, config)
    if found[0] != BASE:
        session.to_stage(directory.stage(found[0]), trainable=False)
        load_method_state(method, directory.stage(found[0]))
    with method.answering(session.learner), no_progress_bars():
        plain = merged(session.learner.model)
        said = _held(session, replace(session.learner, model=plain), directory, found[0])
        plain.save_pretrained(out)
    session.learner.tokenizer.save_pretrained(out)
    return said


def _held(session: Session, exported: Learner, directory: RunDirectory, stage: str) -> str:
    """Hold a merged model against what the run kept of a stage, where the tasks can still be read.

    Raises:
        UserError: If it answers otherwise.
    """
    from forgetmenot.engine.merging import largest_difference

    try:
        sample, before = _kept(session, directory, stage)
    except UserError as error:
        return f"It was not held against the run's log-likelihoods, since its tasks cannot be read: {error}"
    if not sample:
        return (
            "It was not held against the run's log-likelihoods: the run kept none (its answers are written)."
        )
    difference = largest_difference(exported, sample, before)
    return (
        f"Its log-likelihoods of {len(sample)} answers differ from the run's own by at most "
        f"{difference:.1e} nats."
    )


def _kept(session: Session, directory: RunDirectory, stage: str) -> tuple[list[TokenSequence], Tensor]:
    """Sequences of the first examples of each scored task, and the log-likelihoods that the run kept."""
    import torch

    from forgetmenot.evaluation.readings import scored_tasks
    from forgetmenot.runs.plan import make_plan

    plan = make_plan(session.config)
    tokenizer = session.learner.tokenizer
    asked = scored_tasks(session.config.asking, plan.readings[0], plan.scored, tokenizer, session.max_length)
    session.examine(asked[0].first_sequences())
    predictions = read_predictions(directory.stage(stage) / PREDICTIONS)
    sample: list[TokenSequence] = []
    before: list[float] = []
    for one in asked:
        kept = predictions.get(one.task.name)
        if kept is None:
            continue
        rows = dict(zip(kept.ids, kept.log_likelihoods, strict=True))
        for example in one.encoded[:SAMPLE]:
            if (row := rows.get(example.id)) is not None and len(row) == len(example.sequences):
                sample += example.sequences
                before += row
    return sample, torch.tensor(before, dtype=torch.float64)
