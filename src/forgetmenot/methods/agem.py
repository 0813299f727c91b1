"""Averaged gradient episodic memory (A-GEM; Chaudhry et al. 2019, arXiv 1812.00420)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from forgetmenot.methods.shared.gradient_memory import GradientMemory
from forgetmenot.methods.shared.method import Options
from forgetmenot.methods.shared.rehearsal import RehearsalOptions
from forgetmenot.settings import PositiveInt

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class AGemOptions(RehearsalOptions):
    """What the reference gradient is taken over."""

    batch: PositiveInt = 32
    """How many remembered examples, of all past tasks together, are drawn for each step. The default is our
    own: the default batch of training, which doubles the cost of a step."""


class AGEM(GradientMemory):
    """Remove from each gradient what would raise the loss on a batch of past examples (A-GEM).

    With g the step's gradient and r that of the remembered batch, a g with g·r < 0 becomes
    g − (g·r / r·r) r.
    """

    Options: ClassVar[type[Options]] = AGemOptions

    def changed(self, learner: Learner) -> bool:
        """Project the gradient off the reference if they point apart."""
        past = [example for examples in self.memory.values() for example in examples]
        reference = self.reference(learner, past)
        gradient = learner.gathered()
        against = learner.dot(gradient, reference)
        if against >= 0:
            return False
        scale = against / learner.dot(reference, reference)
        for name, value in gradient.items():
            value.sub_(reference[name], alpha=scale)
        return True
