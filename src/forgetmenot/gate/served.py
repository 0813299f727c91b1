"""A model at an endpoint as a side of a check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forgetmenot.evaluation.readings import Reading
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.runs.again import differences, last
from forgetmenot.tasks import Task

if TYPE_CHECKING:
    from forgetmenot.gate.endpoint import Server


@dataclass(frozen=True)
class Served:
    """A model at an endpoint; see `opened.Opened`.

    Attributes:
        server: The model.
        title: Its short name.
    """

    server: Server
    title: str

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on."""
        unknown = dict.fromkeys(("device", "precision", "dtype", "quantization"), "its server's")
        return {"title": self.title, "weights": self.server.weights, **unknown}

    @property
    def details(self) -> dict[str, Any]:
        """What the report says of it."""
        unknown = dict.fromkeys(("device", "precision", "dtype"), "its server's")
        return {
            "weights": self.server.weights,
            "served": self.server.served,
            "parameters": None,
            "threads": None,
            **unknown,
        }

    @property
    def in_words(self) -> str:
        """On what it computes and how, in a line."""
        return f"endpoint {self.server.url}, model {self.server.name}"

    @property
    def has_chat_template(self) -> bool:
        """Whether it knows how a conversation is written."""
        return True

    def scored(
        self, asking: Asking, reading: Reading, tasks: Sequence[Task], *, by_text: bool
    ) -> list[ScoredTask]:
        """The tasks as texts."""
        from forgetmenot.gate.by_text import text_tasks

        return [*text_tasks(asking, reading, tasks)]

    def examine(self, scored: Sequence[ScoredTask]) -> None:
        """There is nothing to prepare."""

    def answers(self, scored: ScoredTask, advance: Any = None) -> Predictions:
        """What the server answers."""
        from forgetmenot.gate.by_text import TextTask, answers

        assert isinstance(scored, TextTask)
        return answers(self.server, scored, advance or (lambda count: None))

    def again(self, scored: ScoredTask, answers: Predictions) -> AskedAgain:
        """In reverse order and one at a time."""
        places = last(scored)
        alone = replace(self, server=self.server.one_at_a_time())
        return differences(scored, places, answers, alone.answers(scored.only(places)))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Nothing has to be merged for an answer."""
        yield
