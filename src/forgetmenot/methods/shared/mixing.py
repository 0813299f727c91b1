"""The common base of methods that mix a share of past examples into each stage, wherever these come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from forgetmenot.methods.shared.memory import answer_lengths, even_shares
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.rehearsal import Rehearsal
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
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

    @model_validator(mode="after")
    def _share_of_something(self) -> Self:
        if self.share == "all" and self.share_in == "tokens":
            raise ValueError("share_in means nothing with share: all; leave it out")
        return self


class Mixing(Rehearsal):
    """Train each stage on its own examples and a share of those that are remembered.

    The stage trains on n new and n · share / (1 − share) past examples (or answer tokens), spread evenly over
    the past tasks and permuted together with the new ones in each epoch. None comes twice: where the memory
    holds fewer, the share is smaller, and the method says so.
    """

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Encoded]:
        """The stage's own, and past ones after them."""
        own, share = super().examples(learner, stage), self.options.share
        if share == "all":
            self.rehearsed = dict(self.memory)
            return [*own, *(example for examples in self.memory.values() for example in examples)]
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


class Mix(Sequence[Encoded]):
    """New examples, each made when it is needed, and past ones after them.

    Args:
        new: As they lie in memory: a list of them would take ten times as much.
        past: Those that are remembered; given out as they are.
    """

    def __init__(self, new: Sequence[Encoded], past: Sequence[Encoded]) -> None:
        self.new, self.past = new, past

    def __len__(self) -> int:
        return len(self.new) + len(self.past)

    def __getitem__(self, index: Any) -> Any:
        """One example, or those of a slice."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        return self.new[k] if k < len(self.new) else self.past[k - len(self.new)]
