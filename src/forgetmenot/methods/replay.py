"""Experience replay: past examples among the new ones (ER; Chaudhry et al. 2019, arXiv 1902.10486)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from forgetmenot.errors import UserError, nearest
from forgetmenot.methods.shared.memory import answer_lengths, even_shares
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.rehearsal import Rehearsal, RehearsalOptions
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class ReplayOptions(RehearsalOptions):
    """How past examples come into a stage.

    They are counted as examples, and the loss is a mean over answer tokens: past tasks with short answers
    weigh little beside a new one with long answers.

    Attributes:
        share: The part of the mix, as it is trained on, that past examples are: 0.05 adds 5 of them to 95 new
            ones. 0 is `sequential`. The default is our own. `all` replays everything that is remembered: with
            `memory: 0.1` TRACE's 10 % of each past task.
        share_in: What the share is counted in. By default the loss is a mean over answer tokens, so five
            percent of two-token `examples` in a stage of 150-token answers have .07 % of it: take `tokens`
            there, or `training.loss_average: example`, with which a share of examples is one of the loss.
        draw: Which of the remembered ones: `random`, or `most-forgotten`: those whose loss per token has
            risen most since they were learned, which takes one pass over the memory before each stage.
        sources: Tasks of the run that are never learned by themselves: all their examples are added to every
            stage, as TRACE adds LIMA's.
    """

    share: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = 0.05
    share_in: Literal["examples", "tokens"] = "examples"
    draw: Literal["random", "most-forgotten"] = "random"
    sources: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _share_of_something(self) -> Self:
        if self.share == "all" and self.share_in == "tokens":
            raise ValueError("share_in means nothing with share: all; leave it out")
        return self


class Replay(Rehearsal):
    """Mix a small share of past tasks' examples into each stage (experience replay, ER).

    The stage trains on n new and n · share / (1 − share) past examples (or answer tokens), spread evenly over
    the past tasks and permuted together with the new ones in each epoch. None comes twice: where the memory
    holds fewer, the share is smaller, and the method says so.
    """

    Options = ReplayOptions

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.learned: dict[str, list[float]] = {}  # each remembered example's loss at the end of its stage

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        """One for each task but the sources.

        Raises:
            UserError: If a source is no task of the run, or nothing else is.
        """
        sources = self.options.sources
        for source in sources:
            if source not in tasks:
                raise UserError(
                    f"method.sources: {source!r} is no task of this run that has a train split; "
                    f"add it to `tasks`. {nearest(source, tasks)}"
                )
        learned = [task for task in tasks if task not in sources]
        if not learned:
            raise UserError("method.sources: every task is a source, so none is trained on; leave one out.")
        return [replace(stage, sources=sources) for stage in super().stages(learned)]

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Encoded]:
        """The stage's own, past ones after them, and then the sources'."""
        own = self._with_past(learner, stage, super().examples(learner, stage))
        further = [example for examples in stage.further.values() for example in examples]
        return [*own, *further] if further else own

    def _with_past(self, learner: Learner, stage: Stage, own: Sequence[Encoded]) -> Sequence[Encoded]:
        share = self.options.share
        if share == "all":
            return [*own, *(example for examples in self.memory.values() for example in examples)]
        new, held = sum(self._sizes(own)), sum(map(sum, map(self._sizes, self.memory.values())))
        wanted = round(new * share / (1 - share))
        past = self._drawn(learner, stage, wanted) if wanted else []
        if self.memory and held < wanted:
            tokens = self.options.share_in == "tokens"
            what = "answer tokens of past examples" if tokens else "past examples"
            self.notes.append(
                f"method.share {share:g} asks for {wanted} {what} and the memory holds {held}: "
                f"their share is {held / (new + held):.3f}. Raise method.memory, or lower the share."
            )
        return Mix(own, past)

    def _sizes(self, examples: Sequence[Encoded]) -> list[int]:
        """What each example counts in the share."""
        return [1] * len(examples) if self.options.share_in == "examples" else answer_lengths(examples)

    def _drawn(self, learner: Learner, stage: Stage, count: int) -> list[Encoded]:
        random = self.random(stage, "draw")
        shares = even_shares(count, [sum(self._sizes(examples)) for examples in self.memory.values()])
        drawn = []
        for (task, examples), share in zip(self.memory.items(), shares, strict=True):
            if self.options.draw == "random":
                order = random.permutation(len(examples))
            else:
                risen = np.array(loss_per_token(learner, examples)) - np.array(self.learned[task])
                order = np.argsort(-risen, kind="stable")
            reached = np.cumsum([0, *self._sizes([examples[k] for k in order])])
            drawn += [examples[k] for k in order[: int(np.abs(reached - share).argmin())]]
        return drawn

    def end(self, learner: Learner, stage: Stage) -> None:
        """Remember some of the stage's examples, and how well they are known."""
        if self.options.share == 0:
            return
        super().end(learner, stage)
        if self.options.draw == "most-forgotten":
            for task in stage.tasks:
                if task in self.memory:
                    self.learned[task] = loss_per_token(learner, self.memory[task])

    def state_dict(self) -> dict[str, Any]:
        """The remembered examples and their losses."""
        return {**super().state_dict(), "learned": self.learned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember them again."""
        super().load_state_dict(state)
        self.learned = dict(state["learned"])


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


def loss_per_token(learner: Learner, examples: Sequence[Encoded]) -> list[float]:
    """Mean negative log-likelihood over each answer's tokens, in nats."""
    sums = learner.log_likelihoods([example.answer for example in examples]).numpy()
    losses: list[float] = (-sums / np.array(answer_lengths(examples))).tolist()
    return losses
