"""The export of a saved stage as one loadable model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.methods import Method, make_method
from forgetmenot.record.files import folder_written_whole, write_text
from forgetmenot.record.layout import BASE, CONFIG, ENVIRONMENT, LAST, PREDICTIONS
from forgetmenot.record.predictions import Predictions, read_predictions
from forgetmenot.record.results import RunResults, read_results_file
from forgetmenot.report.model_card import model_card
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.push import check_push, push
from forgetmenot.runs.saved import at_its_revision, open_saved, other_than_begun

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner
    from forgetmenot.prompting import TokenSequence
    from forgetmenot.runs.session import Session

    Kept = tuple[list[TokenSequence], Tensor]

CARD = "README.md"
SAMPLE = 64  # examples of each task on which the exported model is held against the run; ours


def export(
    run_dir: str | Path,
    stage: int | str,
    out: str | Path,
    gguf: str | None = None,
    *,
    push_to_hub: str | None = None,
    private: bool = False,
) -> str:
    """Write a stage as one model that Transformers loads by itself, with its tokenizer.

    Before it is written, it is held against the log-likelihoods that the run kept of the stage; a GGUF file
    afterwards, as it is read again.

    Args:
        run_dir: The run's directory.
        stage: Its number or name, or `last`.
        out: A new directory.
        gguf: Write model-TYPE.gguf beside the safetensors, with weights of this type: one of GGUF_TYPES.
        push_to_hub: Put `out` into this new repository of the Hugging Face hub, as owner/name.
        private: Make that repository for its owner alone.

    The directory appears whole, or not at all.

    Returns:
        How far the exported models' log-likelihoods lie from the run's, in sentences; and where on the hub
        they are.

    Raises:
        UserError: If there is no such stage, its weights are gone, the method answers with no single model,
            the base model is another than the run began with, the merged model answers otherwise than the
            run did, `out` has something in it or cannot be made, nothing here can write the GGUF file, or
            the hub does not take it.
    """
    directory, out, stage = RunDirectory(Path(run_dir)), Path(out), str(stage)
    config = read_resolved(directory.path / CONFIG)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new directory.")
    method = make_method(config.method.name, config.method.options, config.seed)
    names = [BASE, *begun_with(directory).get("stages", ())]
    found = [name for k, name in enumerate(names) if stage in (name, str(k), f"{k:02d}")]
    if stage == LAST:
        found = [name for name in names if directory.is_committed(name)][-1:]
    if not found:
        raise UserError(f"--stage: this run has no stage {stage!r}. Known: {', '.join(names)}, {LAST}.")
    if found[0] != BASE and method.not_one_model:
        raise UserError(
            f"This run's method, {config.method.name}, {method.not_one_model} "
            f"Its weights are in {directory.stage(found[0])}."
        )
    from forgetmenot.models.adapt import kind_of
    from forgetmenot.models.gguf_export import find_template

    kind = kind_of(config.adapter)
    if found[0] != BASE and kind.not_one_model:
        raise UserError(
            f"{kind.not_one_model} The learned weights are in {directory.stage(found[0]) / kind.folder}."
        )
    if private and push_to_hub is None:
        raise UserError("--private: it is of a repository on the hub; say --push-to-hub OWNER/NAME as well.")
    if push_to_hub is not None:
        check_push(push_to_hub, private=private)
    answers = read_predictions(directory.stage(found[0]) / PREDICTIONS)
    base = at_its_revision(config, begun_with(directory)).model
    template = find_template(base) if gguf is not None else None
    with folder_written_whole(out) as folder:
        said = _write(directory, config, method, found[0], answers, folder, gguf, template)
        write_text(folder / CARD, _card(directory, config, found[0], push_to_hub))
    if push_to_hub is None:
        return said
    return f"{said} It is at {push(out, push_to_hub, private=private)}."


def _write(
    directory: RunDirectory,
    config: RunConfig,
    method: Method,
    stage: str,
    answers: Mapping[str, Predictions],
    out: Path,
    gguf: str | None,
    template: Path | None,
) -> str:
    """Write a stage into a folder; see `export`."""
    from forgetmenot.models.load import no_progress_bars, published_dtype
    from forgetmenot.models.quantize import merged
    from forgetmenot.runs.method_state import load_method_state

    session = open_saved(directory, config)
    if stage != BASE:
        session.to_stage(directory.stage(stage), trainable=False)
        load_method_state(method, directory.stage(stage))
    with method.answering(session.learner), no_progress_bars():
        plain = merged(session.learner.model)
        kept = _kept(session, directory, answers)
        said = _held(replace(session.learner, model=plain), kept)
        dtype = published_dtype(config.model)
        if dtype is not None and plain.dtype != dtype:
            plain.to(dtype)
            said += _rounded(replace(session.learner, model=plain), kept)
        plain.save_pretrained(out)
    session.learner.tokenizer.save_pretrained(out)
    if gguf is None or template is None:
        return said
    del plain
    return f"{said} {_export_gguf(session, out, template, gguf, kept)}"


def _rounded(exported: Learner, kept: Kept | str) -> str:
    """Say that weights are written in the base's dtype, and how far that moves the answers.

    Raises:
        UserError: If that dtype does not hold the learned weights.
    """
    dtype = str(exported.model.dtype).removeprefix("torch.")
    if not all(weights.isfinite().all() for weights in exported.model.parameters()):
        raise UserError(
            f"The base model's weights are {dtype}, which does not hold what was learned; export a stage of "
            "a base model in another dtype."
        )
    said = f" Weights are written in {dtype}, as the base model's are"
    if isinstance(kept, str):
        return f"{said}."
    sample, before = kept
    moved = float((exported.log_likelihoods(sample) - before).abs().max())
    return f"{said}, and then differ from them by at most {moved:.1e} nats."


def _card(directory: RunDirectory, config: RunConfig, stage: str, repository: str | None) -> str:
    """The card of the exported model, which may be in a repository of the hub."""
    results = read_results_file(directory.path)
    return model_card(
        config.model.title,
        stage,
        config.model_dump(mode="json"),
        directory.read_json(ENVIRONMENT) or {},
        None if results is None else RunResults(results),
        on_hub=config.model.on_hub,
        repository=repository,
    )


def _held(exported: Learner, kept: Kept | str) -> str:
    """Hold a merged model against what the run kept of a stage.

    Raises:
        UserError: If it answers otherwise.
    """
    from forgetmenot.engine.merging import largest_difference

    if isinstance(kept, str):
        return f"It was not held against the run's log-likelihoods{kept}"
    difference = largest_difference(exported, *kept)
    return (
        f"Its log-likelihoods of {len(kept[0])} answers differ from the run's own by at most "
        f"{difference:.1e} nats."
    )


def _export_gguf(session: Session, out: Path, template: Path, kind: str, kept: Kept | str) -> str:
    """Write the GGUF file, read it again, and hold it against the run; what was found, in a sentence.

    Raises:
        UserError: The file cannot be written, or what is read again is another model.
    """
    import torch

    from forgetmenot.engine.attention import use_attention
    from forgetmenot.models.gguf_export import check_written, write_gguf
    from forgetmenot.models.load import load_model

    learner, file = session.learner, out / f"model-{kind}.gguf"
    device, exact = learner.device, learner.model.dtype == torch.float32
    learner.model = None  # two models need not fit
    write_gguf(out, template, kind, file)
    settings = session.config.model.model_copy(
        update={"name": str(file), "gguf_file": None, "revision": None, "quantization": None}
    )
    read = load_model(settings, trainable=exact, device=device)
    check_written(read.model, out, kind)
    begins = f"{file.name}, its weights rounded to {kind} and read again,"
    if isinstance(kept, str):
        return f"{begins} holds the same model; it was not held against the run's log-likelihoods{kept}"
    use_attention(read.model, session.attention)
    sample, before = kept
    difference = (replace(learner, model=read.model).log_likelihoods(sample) - before).abs()
    return (
        f"{begins} differs by at most {float(difference.max()):.1e} nats (median "
        f"{float(difference.median()):.1e}).{_other_tokens(learner.tokenizer, read.tokenizer, sample)}"
    )


def _other_tokens(own: Any, read: Any, sample: Sequence[TokenSequence]) -> str:
    """Where the tokenizer that was read from a GGUF file splits texts otherwise: a sentence."""
    texts = {own.decode(one.tokens) for one in sample}
    other = sum(own(text)["input_ids"] != read(text)["input_ids"] for text in texts)
    return (
        f" Its tokenizer, as Transformers reads it, splits {other} of {len(texts)} texts otherwise."
        * bool(other)
    )


def _kept(session: Session, directory: RunDirectory, answers: Mapping[str, Predictions]) -> Kept | str:
    """What the run kept of a stage with these answers, or why nothing can be held against it."""
    try:
        sample, before = _first_examples(session, directory, answers)
    except UserError as error:
        return f", since its tasks cannot be asked again: {error}"
    return (sample, before) if sample else ": the run kept none (its answers are written)."


def _first_examples(session: Session, directory: RunDirectory, answers: Mapping[str, Predictions]) -> Kept:
    """Sequences of the first examples of each scored task, and the log-likelihoods that the run kept."""
    import torch

    from forgetmenot.evaluation.readings import scored_tasks
    from forgetmenot.runs.plan import make_plan

    plan = make_plan(session.config)
    if other := other_than_begun(begun_with(directory), plan):
        raise UserError(f"{other} is other than the run began with.")
    learner, longest = session.learner, session.max_length
    asked = scored_tasks(session.config.asking, plan.readings[0], plan.scored, learner, longest)
    session.examine(asked[0].first_sequences())
    sample: list[TokenSequence] = []
    before: list[float] = []
    for one in asked:
        kept = answers.get(one.task.name)
        if kept is None:
            continue
        rows = dict(zip(kept.ids, kept.log_likelihoods, strict=True))
        for example in one.encoded[:SAMPLE]:
            if (row := rows.get(example.id)) is not None and len(row) == len(example.sequences):
                sample += example.sequences
                before += row
    return sample, torch.tensor(before, dtype=torch.float64)
