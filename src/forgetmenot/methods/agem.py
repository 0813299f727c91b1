"""Averaged gradient episodic memory (A-GEM; Chaudhry et al. 2019, arXiv 1812.00420)."""

from typing import ClassVar

from pydantic import PositiveInt

from forgetmenot.engine import Learner
from forgetmenot.methods.method import Options, Stage
from forgetmenot.methods.rehearsal import Rehearsal, RehearsalOptions


class AGemOptions(RehearsalOptions):
    """What the reference gradient is taken over.

    Attributes:
        batch: How many remembered examples, of all past tasks together, are drawn anew for each step. The
            default is ours: the default batch of training, which doubles the cost of a step.
    """

    batch: PositiveInt = 32


class AGem(Rehearsal):
    """Take out of each gradient what would raise the loss on a batch of past examples (A-GEM).

    With g the step's gradient and r that of the remembered batch, a g with g·r < 0 becomes
    g − (g·r / r·r) r (equation 11); any other stays as it is, to the last bit. The claim is about the
    gradient: the optimizer is AdamW, which scales each coordinate afterwards.
    """

    Options: ClassVar[type[Options]] = AGemOptions

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Open the memory."""
        self._draws = self.random(stage, "draw")
        self._past = [example for examples in self.memory.values() for example in examples]
        self._projected = 0

    def gradients(self, learner: Learner) -> None:
        """Project the gradient off the reference where they point apart."""
        if not self._past:
            return
        drawn = self._draws.permutation(len(self._past))[: self.options.batch]
        reference = learner.gradient_of([self._past[k] for k in drawn])
        gradient = learner.gathered()
        against = learner.dot(gradient, reference)
        if against < 0:
            self._projected += 1
            scale = against / learner.dot(reference, reference)
            for name, value in gradient.items():
                value.sub_(reference[name], alpha=scale)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Say how often the gradient was changed, and remember."""
        if self._past:
            self.notes.append(f"A-GEM changed the gradient in {self._projected} steps.")
        super().end(learner, stage)
