"""Sentence embeddings of a model: vectors of a file's sentences, what they are worth, tuning and export."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.config import RunConfig, by_key, load_config
from forgetmenot.embedding.demonstrations import read_candidates, search
from forgetmenot.embedding.files import read_sentences, refuse_to_replace, write_vectors
from forgetmenot.embedding.prompt import EmbeddingSettings, around
from forgetmenot.embedding.sentence_transformer import export_sentence_transformer, settings_of_export
from forgetmenot.embedding.senteval import PUBLISHED, SETS, has_pairs, read_pairs
from forgetmenot.embedding.similarity import NOT_FINITE, cosines, cosines_of, similarity
from forgetmenot.embedding.transfer import FIELDS, read_transfer, transfer
from forgetmenot.embedding.vectors import embed as vectors_of
from forgetmenot.embedding.vectors import prompts_of
from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.record.files import folder_written_whole
from forgetmenot.report.embedding_tables import print_embeddings
from forgetmenot.report.screen import Screen
from forgetmenot.report.wording import listed
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder
from forgetmenot.settings import PositiveInt
from forgetmenot.trials.embedding_folder import RESULTS, refuse_other, request

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session

EXPORTED = "sentence-transformers"
GROUPS = {"all": (*PUBLISHED, *FIELDS), "sts": PUBLISHED, "transfer": tuple(FIELDS)}
"""What names of several sets stand for."""
OF_EVERY_RUN = ("model", "training.precision", "training.attention", "training.max_length", "data_dir")
"""The parts of a run's config that have an effect wherever a model embeds."""
GUARD = ("A man is dancing.", "A woman is reading a book.", "It rains.", "A man is dancing on the stage.")
"""The sentences that the guard looks at, and an export is held against; ours."""
MERGED_ALIKE = 0.99
"""The cosine below which a merged model's vectors are others than before; ours, wide enough for bf16."""


class MeasureSettings(EmbeddingSettings):
    """The settings of a measurement."""

    limit: PositiveInt | None = None
    """So many pairs of each set, and rows of each split of a transfer task, evenly spaced."""


@dataclass(frozen=True)
class EmbeddingResults:
    """What a model's embeddings are worth.

    Attributes:
        path: The directory with embeddings.json.
        found: Its content.
    """

    path: Path
    found: dict[str, Any]

    def print(self, console: Console | None = None) -> None:
        """Print each set's figure with its interval."""
        print_embeddings(self.found, console or Screen())


def embed(
    model: str | Mapping[str, Any],
    sentences: str | Path,
    output: str | Path,
    *,
    column: str | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Path:
    """Write the vectors of a file's sentences, and beside them a JSON of what they were made with.

    Args:
        model: As a config's `model`.
        sentences: A .txt file with a sentence on each line, or a table (.jsonl, .json, .csv, .tsv, .parquet).
        output: A file: .safetensors (the tensor `embeddings`), .npy, or .parquet (`sentence`, `embedding`).
        column: The table's column of sentences.
        settings: Keys of `EmbeddingSettings`, and dotted keys of a config.
        console: Where to show progress.

    Returns:
        The path of the JSON.

    Raises:
        UserError: If a file cannot be read or may not be written, or a sentence has no vector.
    """
    config, asked = settings_of(EmbeddingSettings, {"model": model}, settings or {})
    texts = read_sentences(Path(sentences), column)
    output, about = Path(output), Path(output).with_suffix(".json")
    if output.absolute() == Path(sentences).absolute():
        raise UserError(f"{output} holds the sentences; give another name for their vectors.")
    refuse_to_replace(output, about)
    with Display(console or Screen(quiet=True)) as display:
        session = session_of(config, display)
        with display.progress("embedding", len(texts)) as advance:
            vectors = vectors_of(session.learner, texts, asked, advance)
    for number, row in enumerate(vectors.isfinite().all(1).tolist(), 1):
        if not row:
            raise UserError(
                f"{sentences}, sentence {number}: {NOT_FINITE}, so that it has no vector. Nothing was "
                "written; try --set training.precision=fp32."
            )
    content = {
        **made_with(session, asked),
        "sentences": str(sentences),
        "column": column,
        "n": len(texts),
        "width": vectors.shape[1],
    }
    write_vectors(output, texts, vectors, content)
    return about


def measure_embeddings(
    model: str | Mapping[str, Any],
    output: str | Path,
    *,
    sets: str | Sequence[str] = "all",
    demonstrations: str | Path | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> EmbeddingResults:
    """Measure a model's embeddings: Spearman on STS, accuracy of a linear classifier on transfer tasks.

    Args:
        model: As a config's `model`.
        output: The directory for embeddings.json.
        sets: Names of SETS and of transfer tasks; `sts`, `transfer` or `all`, which leave SICK-R out where
            its file is not there, and say so.
        demonstrations: Candidates, of which the best on STS-B's dev split is taken: a file of rows with
            `sentence` and `word`, or `paper`.
        data_dir: A folder that holds senteval/ and glue/.
        settings: Keys of `MeasureSettings`, and dotted keys of a config.
        console: Where to show progress.

    Raises:
        UserError: If anything named does not exist or fit.
    """
    named = {"model": model, **({} if data_dir is None else {"data_dir": str(data_dir)})}
    config, asked = settings_of(MeasureSettings, named, settings or {})
    how = EmbeddingSettings(**asked.model_dump(exclude={"limit"}))
    folder = data_folder(config)
    names, left_out = _names(sets, folder)
    pairs = [read_pairs(name, folder).sample(asked.limit) for name in names if name in SETS]
    rows = [read_transfer(name, folder, asked.limit) for name in names if name in FIELDS]
    candidates = None if demonstrations is None else read_candidates(demonstrations)
    if candidates is not None and how.pooling != "prompt":
        raise UserError(
            f"--demonstrations is for the one-word prompt; leave it out with pooling {how.pooling}."
        )
    dev = read_pairs("stsb", folder).sample(asked.limit) if candidates is not None else None
    directory = RunDirectory(Path(output))
    wanted = request(
        config, asked, sets=names, demonstrations=None if demonstrations is None else str(demonstrations)
    )
    refuse_other(directory, "figures", wanted)
    with opened(directory, console, "embed") as display:
        session = session_of(config, display)
        for sentence in left_out.values():
            display.say(sentence)
        searched = []
        if candidates is not None and dev is not None:
            total = len(candidates) * len({*dev.first, *dev.second})
            with display.progress("searching a demonstration", total) as advance:
                searched = search(session.learner, candidates, dev, how, advance)
            how = how.model_copy(update={"demonstration": searched[0][0]})
        measured = []
        for one in pairs:
            with display.progress(one.name, len({*one.first, *one.second})) as advance:
                measured.append(similarity(one, cosines_of(session.learner, [one], how, advance)[0]))
        transferred = []
        for task in rows:
            with display.progress(task.name, len(task.texts) * len(task.texts[0])) as advance:
                transferred.append(transfer(session.learner, task, how, advance))
        values = [one.value for one in measured if one.value is not None]
        content = {
            **made_with(session, how),
            "request": wanted,
            "limit": asked.limit,
            "similarity": [one.to_json() for one in measured],
            "mean": sum(values) / len(values) if len(values) == len(measured) > 1 else None,
            "transfer": [one.to_json() for one in transferred],
            "left_out": left_out,
            "demonstration_search": [
                {"sentence": sentence, "word": word, "dev": value} for (sentence, word), value in searched
            ],
        }
        directory.write_json(RESULTS, content)
    return EmbeddingResults(directory.path, content)


def export_embeddings(
    model: str | Mapping[str, Any],
    output: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Path:
    """Write OUT/sentence-transformers, which sentence-transformers loads and gives raw sentences to.

    Args:
        model: As a config's `model`.
        output: The directory.
        settings: Keys of `EmbeddingSettings`, and dotted keys of a config.
        console: Where to show progress.

    Raises:
        UserError: If the model or its tokenizer cannot be exported.
    """
    config, asked = settings_of(EmbeddingSettings, {"model": model}, settings or {})
    directory = RunDirectory(Path(output))
    wanted = request(config, asked)
    refuse_other(directory, "an export", wanted)
    with opened(directory, console, "embed") as display:
        session = session_of(config, display)
        write_export(session, asked, directory.path)
        content = {**made_with(session, asked), "request": wanted, "similarity": [], "transfer": []}
        directory.write_json(RESULTS, content)
    return directory.path / EXPORTED


def write_export(session: Session, settings: EmbeddingSettings, folder: Path) -> float:
    """Write the session's model, its adapters merged, for sentence-transformers; the session is over then.

    Returns:
        The least cosine, over a few sentences, of a vector of the merged model with the one before.

    Raises:
        UserError: Merging changes the vectors, or the model cannot be exported.
    """
    from forgetmenot.models.load import no_progress_bars
    from forgetmenot.models.quantize import merged

    path, learner = folder / EXPORTED, session.learner
    before = vectors_of(learner, GUARD, settings)
    plain = merged(learner.model)
    cosine = float(cosines(before, vectors_of(replace(learner, model=plain), GUARD, settings)).min())
    if not cosine >= MERGED_ALIKE:
        raise UserError(
            f"Merged into the weights the adapter gives other vectors (a cosine of {cosine:.4f}); nothing "
            "was exported. Set training.precision: fp32, or use OUT/adapter with PEFT."
        )
    if path.is_dir():  # of an earlier export into this directory, which is ours
        shutil.rmtree(path)
    with folder_written_whole(path) as aside, no_progress_bars():
        export_sentence_transformer(plain, learner.tokenizer, settings, session.config.model.title, aside)
    return cosine


def settings_of(
    kind: type[EmbeddingSettings],
    named: Mapping[str, Any],
    given: Mapping[str, Any],
    used: Sequence[str] = OF_EVERY_RUN,
) -> tuple[RunConfig, Any]:
    """A config from those of the settings that are keys of one, and the others by their own class.

    Args:
        kind: The class of the others.
        named: Keys of a config that are no settings.
        given: The settings.
        used: Which keys of a config have an effect, and all below them.

    Raises:
        UserError: A setting is wrong or has no effect, or is one of how a sentence becomes a vector where the
            model's own tokenizer sees to that.
    """
    given = by_key(given)
    of_run = {key: value for key, value in given.items() if key.split(".")[0] in RunConfig.model_fields}
    for key in of_run:
        if not any(f"{key}.".startswith(f"{one}.") for one in used):
            raise UserError(f"{key}: it has no effect here; leave it out. Of a run's config: {listed(used)}.")
    config = load_config(None, {**named, **of_run})
    own = {key: value for key, value in given.items() if key not in of_run}
    if (exported := settings_of_export(Path(config.model.name))) is not None:
        if fixed := sorted(own.keys() & EmbeddingSettings.model_fields.keys()):
            raise UserError(
                f"{fixed[0]}: {config.model.name} was exported for sentence embeddings, and its tokenizer "
                "writes the prompt itself; leave it out."
            )
        own["pooling"] = exported.pooling
    try:
        return config, kind.model_validate(own)
    except ValidationError as error:
        raise UserError(validation_sentence(error, kind)) from error


def session_of(config: RunConfig, display: Display, *, trains: bool = False) -> Session:
    """Load the model, and let the guard look at how its sequences are laid out."""
    from forgetmenot.runs.session import open_session

    session = open_session(config)
    display.say(session.in_words if trains else session.computing_in_words)
    prompts = prompts_of(session.learner, GUARD, EmbeddingSettings())
    session.examine([TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts], writes=False)
    return session


def made_with(session: Session, settings: EmbeddingSettings) -> dict[str, Any]:
    """What vectors depend on."""
    return {
        "version": 1,
        "model": session.config.model.title,
        **{
            key: session.identity[key]
            for key in ("model_revision", "dtype", "precision", "quantization", "layout")
        },
        "settings": settings.model_dump(mode="json", exclude={"limit"}),
        "text": "{}…{}".format(*around(settings)),
        "versions": session.record["versions"],
    }


def _names(sets: str | Sequence[str], folder: Path | None) -> tuple[list[str], dict[str, str]]:
    """The sets by name, and why some of a group are left out."""
    found: dict[str, None] = {}
    left_out = {}
    for name in [one.strip() for one in (sets.split(",") if isinstance(sets, str) else sets)]:
        for one in GROUPS.get(name, (name,)):
            if one not in (*SETS, *FIELDS):
                raise UserError(f"--measure: no set {one!r}. {nearest(one, (*GROUPS, *SETS, *FIELDS))}")
            if name in GROUPS and one == "sick-r" and not has_pairs(one, folder):
                left_out[one] = "SICK-R is left out: senteval/downstream/SICK is not in data_dir."
            else:
                found[one] = None
    return list(found), left_out
