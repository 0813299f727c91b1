"""A side of a check, opened: its model loaded, with its adapter or at its stage, ready to be asked."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetmenot.config import RunConfig
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.gate.sides import Side
from forgetmenot.methods import Method, make_method
from forgetmenot.record.layout import STAGES
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Opened:
    """A side that can be asked.

    Attributes:
        session: Its model.
        method: What answers: that of the run a stage is of.
        identity: What two sides must share to be asked in the same way, and what tells one side's answers
            from those of other weights (`weights`).
    """

    session: Session
    method: Method
    identity: dict[str, Any]

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Answer as the method answers, with what it merges or averages."""
        with self.method.answering(self.session.learner):
            yield


@contextmanager
def opened_side(side: Side, training: TrainingSettings, display: Display) -> Iterator[Opened]:
    """Load a side; its memory is free again afterwards.

    Args:
        side: Which.
        training: How long prompts may be, and in which precision both sides compute.
        display: Where to show progress.

    Raises:
        UserError: If the model cannot be loaded, or is another than an adapter or a run was made with.
    """
    session, method = _stage(side, training, display) if side.run else _model(side, training, display)
    weights = session.identity["model_revision"]
    if side.adapter is not None or side.run is not None:
        weights = f"{weights}+{_fingerprint(_files(side))}"
    try:
        yield Opened(session, method, {"weights": weights, "title": side.title, "kind": side.kind})
    finally:
        session.learner.model = None  # two models need not fit
        gc.collect()


def _model(side: Side, training: TrainingSettings, display: Display) -> tuple[Session, Method]:
    from forgetmenot.runs.session import open_session

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
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    from forgetmenot.models.load import no_progress_bars

    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise UserError(f"check: the adapter {folder} has no {ADAPTER_WEIGHTS}; save it as safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        with no_progress_bars():
            adapted = PeftModel.from_pretrained(model, folder).eval()
    except SafetensorError as error:
        raise UserError(f"check: the adapter {folder} is damaged ({error}).") from error
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".: ")
        raise UserError(f"check: the adapter {folder} does not fit its model ({first}).") from error
    wanted = {
        name: tuple(value.shape)
        for name, value in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
    }
    for how, names in (("lacks", wanted.keys() - there.keys()), ("has", there.keys() - wanted.keys())):
        if names:
            one, more = sorted(names)[0], f" and {len(names) - 1} more" if len(names) > 1 else ""
            known = "that its model has" if how == "lacks" else "that its model does not know"
            raise UserError(f"check: the adapter {folder} {how} weights {known} ({one}{more}).")
    return adapted


def with_zero_delta(opened: Opened) -> None:
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
