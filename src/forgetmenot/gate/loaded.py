"""A model on this machine as a side of a check: loaded, with its adapter or at its stage."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetmenot.config import RunConfig
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import Reading, scored_tasks
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking
from forgetmenot.gate.sides import Side
from forgetmenot.methods import Method, make_method
from forgetmenot.record.layout import STAGES
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.runs.again import asked_again
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.tasks import Task

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session


@dataclass(frozen=True)
class Loaded:
    """A model on this machine; see `opened.Opened`.

    Attributes:
        session: The model.
        method: What answers: that of the run a stage is of.
        named: Its weights, title and kind.
    """

    session: Session
    method: Method
    named: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on."""
        return {**self.session.identity, **self.named}

    @property
    def details(self) -> dict[str, Any]:
        """What the report says of it."""
        computing = {key: self.identity[key] for key in ("device", "threads", "precision", "dtype")}
        return {
            "weights": self.identity["weights"],
            "parameters": self.session.record["parameters"],
            **computing,
        }

    @property
    def in_words(self) -> str:
        """On what it computes and how, in a line."""
        return self.session.computing_in_words

    @property
    def has_chat_template(self) -> bool:
        """Whether it knows how a conversation is written."""
        return bool(self.session.learner.tokenizer.chat_template)

    def scored(
        self, asking: Asking, reading: Reading, tasks: Sequence[Task], *, by_text: bool
    ) -> list[ScoredTask]:
        """The tasks in its tokens."""
        found = scored_tasks(asking, reading, tasks, self.session.learner, self.session.max_length)
        if by_text:
            from forgetmenot.gate.by_text import whole

            found = [whole(one, self.session.learner.tokenizer) for one in found]
        return found

    def examine(self, scored: Sequence[ScoredTask]) -> None:
        """Let the guard choose how they are laid out."""
        self.session.examine(scored[0].first_sequences(), writes=any(one.generated for one in scored))

    def answers(self, scored: ScoredTask, advance: Any = None) -> Predictions:
        """What it answers, by the engine."""
        return evaluate(self.session.learner, self.method, scored, advance)

    def again(self, scored: ScoredTask, answers: Predictions) -> AskedAgain:
        """In reverse order and smaller batches."""
        return asked_again(self.session.learner, self.method, scored, answers)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Answer as the method answers, with what it merges or averages."""
        with self.method.answering(self.session.learner):
            yield


@contextmanager
def loaded_side(side: Side, training: TrainingSettings, display: Display) -> Iterator[Loaded]:
    """Load a side; its memory is free again afterwards. See `opened.opened_side`."""
    session, method = _stage(side, training, display) if side.run else _model(side, training, display)
    weights = session.identity["model_revision"]
    if side.adapter is not None or side.run is not None:
        weights = f"{weights}+{_fingerprint(_files(side))}"
    try:
        yield Loaded(session, method, {"weights": weights, "title": side.title, "kind": side.kind})
    finally:
        session.learner.model = None  # two models need not fit
        gc.collect()


def _model(side: Side, training: TrainingSettings, display: Display) -> tuple[Session, Method]:
    from forgetmenot.runs.session import open_session

    assert side.model is not None
    session = open_session(RunConfig(model=side.model, training=training))
    session.learner.progress = display.progress
    if side.adapter is not None:
        session.learner.model = with_adapter(session.learner.model, side.adapter)
    return session, make_method("sequential", {}, 0)


def _stage(side: Side, training: TrainingSettings, display: Display) -> tuple[Session, Method]:
    from forgetmenot.runs.saved import open_saved, take_up

    assert side.run is not None
    assert side.config is not None
    assert side.stage is not None
    directory = RunDirectory(side.run)
    config = side.config.model_copy(update={"training": training})
    session = open_saved(directory, config, display)
    method = make_method(config.method.name, config.method.options, config.seed)
    if not take_up(directory, session, method, side.stage):
        raise UserError(
            f"check: the weights of {side.given} are no longer on disk (checkpoints: "
            f"{config.checkpoints}); run with checkpoints: all to check every stage."
        )
    return session, method


def with_adapter(model: Any, folder: Path) -> Any:
    """Put a PEFT adapter on a model.

    Raises:
        UserError: If its weights are damaged, pickled, or do not fit the model one by one.
    """
    from forgetmenot.models.adapters.peft_folder import read_adapter
    from forgetmenot.models.load import no_progress_bars

    try:
        with no_progress_bars():
            return read_adapter(model, folder).eval()
    except UserError as error:
        raise UserError(f"check: {error}") from error


def with_zero_delta(opened: Loaded) -> None:
    """Put a fresh LoRA adapter on a plain model: it changes no weight, and whatever differs is the path's."""
    from forgetmenot.models.adapt import adapt
    from forgetmenot.models.settings import AdapterSettings

    learner = opened.session.learner
    learner.model = adapt(learner.model, AdapterSettings(), 1, 0).eval()


def _files(side: Side) -> list[Path]:
    folder = side.adapter
    if folder is None:
        assert side.run is not None
        assert side.stage is not None
        folder = side.run / STAGES / side.stage
    return sorted(file for file in folder.rglob("*") if file.suffix in (".safetensors", ".json"))


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.suffix == ".safetensors" or file.name == "adapter_config.json":
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
