"""Contrastive tuning of a model's sentence embeddings, measured before and after, and its export."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from forgetmenot.config import RunConfig, by_key
from forgetmenot.embedding.contrastive import PAPER, WARMUP, TuningSettings, encode, tune
from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.senteval import read_pairs
from forgetmenot.embedding.similarity import cosines_of, similarity
from forgetmenot.embedding.triples import read_triples
from forgetmenot.errors import UserError
from forgetmenot.methods import Method
from forgetmenot.metrics import paired_difference
from forgetmenot.record.files import folder_written_whole, read_lines
from forgetmenot.record.layout import stage_folder
from forgetmenot.report.screen import Screen
from forgetmenot.report.wording import number, signed, span
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder
from forgetmenot.trials.embed import (
    EXPORTED,
    OF_EVERY_RUN,
    made_with,
    session_of,
    settings_of,
    write_export,
)
from forgetmenot.trials.embedding_folder import ADAPTER, RESULTS, refuse_other, request

if TYPE_CHECKING:
    from forgetmenot.runs.midway import Midway

OF_TUNING = ("adapter", "evaluation.limit", "seed")
"""What of a run's config has an effect beside what every embedding takes."""
SEED = 42
"""The paper's."""


class TuneSettings(EmbeddingSettings, TuningSettings):
    """The settings of a tuning: how a sentence becomes a vector, and what the loss is."""


@dataclass(frozen=True)
class TunedEmbeddings:
    """A tuned model, and what that changed.

    Attributes:
        path: The directory with adapter/, sentence-transformers/ and embeddings.json.
        found: The content of embeddings.json.
    """

    path: Path
    found: dict[str, Any]

    def print(self, console: Console | None = None) -> None:
        """Print STS-B's dev split before and after, and their difference."""
        console, (after,), before = console or Screen(), self.found["similarity"], self.found["before"]
        change = self.found["difference"]
        console.print(
            Text(
                f"STS-B dev: {number(before['value'])} before, {number(after['value'])} after "
                f"{self.found['tuning']['steps']} steps on {self.found['tuning']['triples']:,} triples; "
                f"{signed(change['difference'])} ({span(change['interval'])}, n = {after['n']:,})"
            )
        )
        for name in (RESULTS, ADAPTER, EXPORTED):
            console.print(f"{name}: {self.path / name}", highlight=False, soft_wrap=True)


def tune_embeddings(
    model: str | Mapping[str, Any],
    output: str | Path,
    *,
    data_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> TunedEmbeddings:
    """Tune a model's sentence embeddings on NLI triples, with the paper's settings where none are given.

    A call that was cut off goes on from where it was saved (`training.save_every`), if it is given again.

    With `model.quantization: nf4` it is QLoRA, as the paper's. STS-B's dev split is measured before and
    after; nothing is chosen on it.

    Args:
        model: As a config's `model`.
        output: The directory for adapter/ (PEFT's), sentence-transformers/ and embeddings.json.
        data_dir: A folder that holds glue/.
        settings: Keys of `TuneSettings`, and dotted keys of a config: `adapter`, `training`, `seed`;
            `training.limit` takes so many triples, `evaluation.limit` so many pairs of STS-B.
        console: Where to show progress.

    Raises:
        UserError: If anything named does not exist or fit, or a loss is not finite.
    """
    given = by_key(settings or {})
    if "adapter.kind" in given:
        _require_lora(given["adapter.kind"])  # before the paper's rank is found to fit no other kind
    named = {"model": model, "seed": SEED, **PAPER, **WARMUP}
    named |= {} if data_dir is None else {"data_dir": str(data_dir)}
    config, asked = settings_of(TuneSettings, named, given, (*OF_EVERY_RUN, "training", *OF_TUNING))
    _check(config)
    how = EmbeddingSettings(**{name: getattr(asked, name) for name in EmbeddingSettings.model_fields})
    folder = data_folder(config)
    limit = config.training.limit
    assert not isinstance(limit, Mapping)  # `_check` refused it
    triples = read_triples(asked.sources, folder)[:limit]
    if not triples:
        raise UserError("training.limit: 0 leaves no triple to tune on; give one or more.")
    dev = read_pairs("stsb", folder).sample(config.evaluation.limit)
    directory = RunDirectory(Path(output))
    adapter = config.adapter.model_dump(mode="json")
    wanted = request(config, asked, adapter=adapter, seed=config.seed, pairs=config.evaluation.limit)
    refuse_other(directory, "a tuning", wanted)
    with opened(directory, console, "embed") as display:
        from forgetmenot.models.adapt import adapt
        from forgetmenot.runs.midway import Midway

        session = session_of(config, display, trains=True)
        learner, texts = session.learner, len({*dev.first, *dev.second})
        with display.progress("STS-B dev, before", texts) as advance:
            (before,) = cosines_of(learner, [dev], how, advance)
        learner.model = adapt(learner.model, config.adapter, 1, config.seed)
        encoded = encode(learner, triples, how, asked.sentence_tokens)
        made = made_with(session, how)
        about = {
            **asked.model_dump(mode="json", include=set(TuningSettings.model_fields)),
            "triples": len(triples),
            "learning_rate": session.learning_rate,
            "seed": config.seed,
            "adapter": adapter,
            "training": config.training.model_dump(mode="json"),
        }
        place = stage_folder(directory.path, f"tuning-{_digest(made, about, encoded)}")
        place.parent.mkdir(exist_ok=True)
        with Midway(place, Method(), config.training, display.say) as midway:
            _tune(session, encoded, asked.temperature, midway, display)
        losses = read_lines(midway.log, lambda row: float(row["loss"]))
        with display.progress("STS-B dev, after", texts) as advance:
            (after,) = cosines_of(learner, [dev], how, advance)
        change = paired_difference("spearman", dev.gold, after, before, seed=config.seed)
        content = {
            **made,
            "request": wanted,
            "similarity": [similarity(dev, after).to_json()],
            "transfer": [],
            "before": similarity(dev, before).to_json(),
            "difference": change.to_json(),
            "tuning": {**about, "steps": len(losses), "losses": losses},
        }
        (directory.path / RESULTS).unlink(missing_ok=True)  # an earlier tuning's, whose adapter goes now
        _save_adapter(session, directory.path / ADAPTER)
        content["merged_cosine"] = write_export(session, how, directory.path)
        directory.write_json(RESULTS, content)
        for file in place.parent.glob(".tuning-*"):  # of other settings too; nothing else there is ours
            file.unlink()
        with suppress(OSError):
            place.parent.rmdir()
    return TunedEmbeddings(directory.path, content)


def _digest(made: Mapping[str, Any], about: Mapping[str, Any], triples: Sequence[Any]) -> str:
    """What tells a tuning from others, however often they save."""
    training = {key: value for key, value in about["training"].items() if not key.startswith("save_every")}
    content = json.dumps([made, {**about, "training": training}, triples])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _tune(session: Any, triples: Sequence[Any], temperature: float, midway: Midway, display: Display) -> None:
    """Tune, or go on where an earlier call with the same settings was cut off."""
    training, shown = session.config.training, 0
    assert isinstance(training.epochs, int)  # or it was refused
    steps = len(triples) // min(training.batch_size, len(triples)) * training.epochs
    with display.progress("tuning", steps) as advance:

        def on_step(step: int, loss: float) -> None:
            nonlocal shown
            midway.record({"step": step, "loss": loss})
            advance(step - shown, f"loss {loss:.3f}")
            shown = step

        tune(
            session.learner,
            triples,
            temperature,
            training,
            learning_rate=session.learning_rate,
            seed=session.config.seed,
            on_step=on_step,
            saves=midway,
        )


def _check(config: RunConfig) -> None:
    """Refuse other adapters than LoRA, and settings for several tasks, of which there are none.

    Raises:
        UserError: There is one.
    """
    _require_lora(config.adapter.kind)
    for key in ("epochs", "limit"):
        if isinstance(getattr(config.training, key), Mapping):
            raise UserError(f"training.{key}: tuning has no tasks; give a number.")


def _require_lora(kind: str) -> None:
    if kind != "lora":
        raise UserError(f"adapter.kind: embeddings are tuned by LoRA; {kind} is not offered here.")


def _save_adapter(session: Any, path: Path) -> None:
    """Write the adapter in PEFT's layout."""
    from forgetmenot.models.adapt import kind_of

    if path.is_dir():  # of an earlier tuning into this directory, which is ours
        shutil.rmtree(path)
    with folder_written_whole(path) as aside:
        kind_of(session.config.adapter).save(session.learner.model, aside)
        for file in (aside / ADAPTER).iterdir():
            file.rename(aside / file.name)
        (aside / ADAPTER).rmdir()
