"""The saved stages of a run, opened again: its model, with the same layout and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetmenot.config import RunConfig
from forgetmenot.methods import Method
from forgetmenot.record.layout import BASE
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session


def open_saved(directory: RunDirectory, config: RunConfig, display: Display | None = None) -> Session:
    """The model of a run, computing as the run began; the display shows what takes long."""
    from forgetmenot.runs.session import open_session

    session = open_session(config, begun_with(directory).get("threads"))
    if display is not None:
        session.learner.progress = display.progress
    return session


def take_up(directory: RunDirectory, session: Session, method: Method, stage: str) -> bool:
    """Go to the weights of a stage, and to what the method knew then; whether they are still there."""
    from forgetmenot.models.weights import has_weights
    from forgetmenot.runs.method_state import load_method_state

    if stage == BASE:
        session.to_base()
    elif has_weights(directory.stage(stage)):
        session.to_stage(directory.stage(stage), trainable=False)
        load_method_state(method, directory.stage(stage))
    else:
        return False
    return True
