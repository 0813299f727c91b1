"""Experience replay: past examples among the new ones (ER; Chaudhry et al. 2019, arXiv 1902.10486)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.mixing import Mixing, MixOptions
from forgetmenot.methods.shared.rehearsal import RehearsalOptions
from forgetmenot.methods.shared.sources import learned_tasks
from forgetmenot.prompting import Encoded, Mix
from forgetmenot.settings import Names

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class ReplayOptions(MixOptions, RehearsalOptions):
    """How past examples come into a stage."""

    draw: Literal["random", "most-forgotten"] = "random"
    """Which of the remembered ones: `random`, or `most-forgotten`: those whose loss per token has risen most
    since they were learned, which takes one pass over the memory before each stage."""
    sources: Names = ()
    """Tasks of the run that are never learned by themselves: all their examples are added to every stage, as
    TRACE adds LIMA's."""


class Replay(Mixing):
    """Mix a small share of past tasks' examples into each stage (experience replay, ER)."""

    Options = ReplayOptions

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.learned: dict[str, list[float]] = {}  # each remembered example's loss at the end of its stage

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        """One for each task but the sources."""
        sources = self.options.sources
        return [replace(stage, sources=sources) for stage in super().stages(learned_tasks(tasks, sources))]

    def examples(self, learner: Learner, stage: Stage) -> Mix:
        """The stage's own, past ones after them, and then the sources'."""
        further = [example for examples in stage.further.values() for example in examples]
        return super().examples(learner, stage).beside(further)

    def ordered(
        self, learner: Learner, task: str, examples: Sequence[Encoded], random: np.random.Generator
    ) -> list[Encoded]:
        """At random, or those first that are forgotten most."""
        if self.options.draw == "random":
            return super().ordered(learner, task, examples, random)
        risen = np.array(loss_per_token(learner, examples)) - np.array(self.learned[task])
        return [examples[k] for k in np.argsort(-risen, kind="stable")]

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


def loss_per_token(learner: Learner, examples: Sequence[Encoded]) -> list[float]:
    """Mean negative log-likelihood over each answer's tokens, in nats."""
    sums = learner.log_likelihoods([example.answer for example in examples]).numpy()
    losses: list[float] = (-sums / np.array(answer_lengths(examples))).tolist()
    return losses
