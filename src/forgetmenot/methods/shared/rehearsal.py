"""The common base of rehearsal methods: after each task some of its examples are remembered, as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from forgetmenot.methods.shared.memory import Keep, choose, from_plain, to_plain
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class RehearsalOptions(Options):
    """What is remembered of each task."""

    memory: Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(ge=0, le=1, strict=True)] = 0.1
    """How many examples of each task are remembered: a whole number, or a fraction of its training data with
    a decimal point (1.0 is all of it). 0 remembers nothing and is `sequential`. The default is TRACE's 10 %
    (Wang et al. 2023)."""
    keep: Keep = "random"
    """Which: `random`; `class-balanced`, as many of each label; `herding`, those nearest to each label's mean
    embedding."""


class Rehearsal(Method):
    """Remember some examples of each task.

    Attributes:
        memory: What is remembered, by task in the order learned.
    """

    Options: ClassVar[type[Options]] = RehearsalOptions
    keeps = "some of its examples, as tokens"
    past_data = True

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.memory: dict[str, list[Encoded]] = {}

    def end(self, learner: Learner, stage: Stage) -> None:
        """Remember some of the stage's examples."""
        random = self.random(stage, "keep")
        for task, examples in stage.data.items():
            if kept := choose(learner, examples, self.room(examples), self.options.keep, random):
                self.memory[task] = kept

    def room(self, examples: Sequence[Encoded]) -> int:
        """How many examples of a task are remembered, by `memory`."""
        size: int | float = self.options.memory
        if isinstance(size, int):
            return size
        count = round(size * len(examples))
        if size and not count:
            self.notes.append(
                f"method.memory {size:g} of {len(examples)} examples rounds to none: none is kept to be "
                "rehearsed. Raise method.memory, or give a whole number."
            )
        return count

    def random(self, stage: Stage, purpose: str) -> np.random.Generator:
        """A generator of the method's own, anew for each stage and purpose, so that it needs no saving."""
        return np.random.default_rng([self.seed, stage.number, *purpose.encode()])

    def state_dict(self) -> dict[str, Any]:
        """The remembered examples."""
        return {"memory": {task: [to_plain(e) for e in examples] for task, examples in self.memory.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember them again."""
        self.memory = {task: [from_plain(row) for row in rows] for task, rows in state["memory"].items()}
