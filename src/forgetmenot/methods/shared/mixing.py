"""The common base of methods that mix a share of past examples into each stage, wherever these come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from forgetmenot.methods.shared.memory import answer_lengths, even_shares
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.rehearsal import Rehearsal
from forgetmenot.methods.shared.schedule import spaced
from forgetmenot.prompting import Encoded, Mix
from forgetmenot.settings import PositiveInt

if TYPE_CHECKING:
    from forgetmenot.engine.batches import Batches, Shuffled
    from forgetmenot.engine.learner import Learner


class MixOptions(Options):
    """How much of a stage past examples are.

    They are counted as examples, and the loss is a mean over answer tokens: past tasks with short answers
    weigh little beside a new one with long answers.
    """

    share: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = 0.05
    """The part of the mix, as it is trained on, that past examples are: 0.05 adds 5 of them to 95 new ones. 0
    is `sequential`. The default is our own. `all` replays everything that is remembered: with `memory: 0.1`
    TRACE's 10 % of each past task."""
    share_in: Literal["examples", "tokens"] = "examples"
    """What the share is counted in. By default the loss is a mean over answer tokens, so five percent of
    two-token `examples` in a stage of 150-token answers have .07 % of it: take `tokens` there, or
    `training.loss_average: example`, with which a share of examples is one of the loss."""
    schedule: Literal["even", "increasing", "model-time"] = "even"
    """When in a stage past examples come; how many, it does not change. `even`: among the new ones, in every
    batch alike. `increasing`: in replays after 1, 2, 4, 7, 15, 30, 60, … days, so further and further apart,
    where a `day` is a number of steps. `model-time`: the same, and time is how far the steps have moved the
    weights, as in FOREVER (arXiv 2601.03938); while a stage trains, it takes one copy of what learns."""
    day: PositiveInt = 24
    """How many steps are the first day of a `schedule`; FOREVER's. A stage of n batches of new examples has a
    replay for each of the days up to n / `day`; where it is shorter than a day, one at its end."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.share == "all" and self.share_in == "tokens":
            raise ValueError("share_in means nothing with share: all; leave it out")
        if self.schedule == "even" and self.day != 24:
            raise ValueError("day means nothing with schedule: even; leave it out, or set another schedule")
        return self


class Mixing(Rehearsal):
    """Train each stage on its own examples and a share of those that are remembered.

    The stage trains on n new and n · share / (1 − share) past examples (or answer tokens), spread evenly over
    the past tasks and permuted together with the new ones in each epoch. None comes twice: where the memory
    holds fewer, the share is smaller, and the method says so.
    """

    rehearses = True

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self._moved: list[float] | None = None  # by each step of the stage, where the schedule asks for it

    def examples(self, learner: Learner, stage: Stage) -> Mix:
        """The stage's own, and past ones after them."""
        own, share = super().examples(learner, stage), self.options.share
        if share == "all":
            self.rehearsed = dict(self.memory)
            return Mix(own, [example for examples in self.memory.values() for example in examples])
        new, held = sum(self.sizes(own)), sum(map(sum, map(self.sizes, self.memory.values())))
        wanted = round(new * share / (1 - share))
        self.rehearsed = self._drawn(learner, stage, wanted) if wanted else {}
        if self.memory and share and not wanted:
            self.notes.append(
                f"method.share {share:g} beside {new} new {self._counted} rounds to none: no past example "
                "is rehearsed. Raise method.share."
            )
        if self.memory and held < wanted:
            what = "answer tokens of past examples" if self._counted == "answer tokens" else "past examples"
            self.notes.append(
                f"method.share {share:g} asks for {wanted} {what} and the memory holds {held}: "
                f"their share is {held / (new + held):.3f}. Raise method.memory, or lower the share."
            )
        return Mix(own, [example for examples in self.rehearsed.values() for example in examples])

    def batches(self, stage: Stage, examples: Sequence[Encoded], shuffled: Shuffled) -> Batches:
        """All examples alike, or replays on their days."""
        self._moved = None
        schedule, day = self.options.schedule, self.options.day
        if schedule == "even" or not isinstance(examples, Mix) or not examples.past:
            return shuffled
        random = self.random(stage, "schedule")
        found = spaced(shuffled, examples.past, day, random, model_time=schedule == "model-time")
        if (steps := len(found.new)) < 2 * day:
            self.notes.append(
                f"method.day {day}: {steps} batches of new examples are not two days, so all past examples "
                f"come in one replay. Set method.day to {max(steps // 7, 1)} for more."
            )
        self._moved = found.moved
        return found

    def training_state(self) -> dict[str, Any]:
        """How far each step has moved the weights, where the schedule asks."""
        return {} if self._moved is None else {"moved": self._moved}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        if self._moved is not None:
            self._moved[:] = state["moved"]

    def sizes(self, examples: Sequence[Encoded]) -> list[int]:
        """What each example counts in the share."""
        return [1] * len(examples) if self.options.share_in == "examples" else answer_lengths(examples)

    @property
    def _counted(self) -> str:
        """What the share is counted in, in words."""
        return "answer tokens" if self.options.share_in == "tokens" else "examples"

    def _drawn(self, learner: Learner, stage: Stage, count: int) -> dict[str, list[Encoded]]:
        """What a stage replays of each past task: about an even part of `count`, as `ordered` has them."""
        random = self.random(stage, "draw")
        shares = even_shares(count, [sum(self.sizes(examples)) for examples in self.memory.values()])
        drawn = {}
        for (task, examples), share in zip(self.memory.items(), shares, strict=True):
            chosen = self.ordered(learner, task, examples, random)
            reached = np.cumsum([0, *self.sizes(chosen)])
            drawn[task] = chosen[: int(np.abs(reached - share).argmin())]
        return drawn

    def ordered(
        self, learner: Learner, task: str, examples: Sequence[Encoded], random: np.random.Generator
    ) -> list[Encoded]:
        """A task's remembered examples, those first that are replayed first; the default is at random."""
        return [examples[k] for k in random.permutation(len(examples))]
