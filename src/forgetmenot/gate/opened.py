"""A side of a check, opened: what can be asked of it, be it a model on this machine or at an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.evaluation.readings import Reading
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking
from forgetmenot.gate.loaded import loaded_side
from forgetmenot.gate.served import Served
from forgetmenot.gate.sides import Side
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.runs.display import Display
from forgetmenot.tasks import Task


class Opened(Protocol):
    """A side that can be asked."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on: `weights`, and how they are computed."""
        ...

    @property
    def details(self) -> dict[str, Any]:
        """What the report says of it, beside its names."""
        ...

    @property
    def in_words(self) -> str:
        """On what it computes and how, in a line."""
        ...

    @property
    def has_chat_template(self) -> bool:
        """Whether it knows how a conversation is written."""
        ...

    def scored(
        self, asking: Asking, reading: Reading, tasks: Sequence[Task], *, by_text: bool
    ) -> list[ScoredTask]:
        """The tasks as they are put to this side; by text alone where another one is an endpoint."""
        ...

    def examine(self, scored: Sequence[ScoredTask]) -> None:
        """Prepare to answer these tasks."""
        ...

    def answers(self, scored: ScoredTask, advance: Any = None) -> Predictions:
        """What it answers to one task; `advance` is told how many sequences are done."""
        ...

    def again(self, scored: ScoredTask, answers: Predictions) -> AskedAgain:
        """Its last examples asked once more in another order and batch, and how many answers differ."""
        ...

    def answering(self) -> AbstractContextManager[None]:
        """The context in which it answers."""
        ...


@contextmanager
def opened_side(side: Side, training: TrainingSettings, display: Display) -> Iterator[Opened]:
    """Open a side; the memory of a model is free again afterwards.

    Args:
        side: Which.
        training: How long prompts may be, and in which precision both sides compute.
        display: Where to show progress.

    Raises:
        UserError: If the model cannot be loaded, or is another than an adapter or a run was made with.
    """
    if side.server is not None:
        yield Served(side.server, side.title)
        return
    with loaded_side(side, training, display) as loaded:
        yield loaded
