"""Gradient episodic memory (GEM; Lopez-Paz & Ranzato 2017, arXiv 1706.08840)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forgetmenot.methods.shared.gradient_memory import GradientMemory
from forgetmenot.methods.shared.method import Options
from forgetmenot.methods.shared.rehearsal import RehearsalOptions
from forgetmenot.metrics.metric import Floats
from forgetmenot.settings import NonNegativeFloat, PositiveInt

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

RANK_TOLERANCE = 1e-10


class GemOptions(RehearsalOptions):
    """What the constraints are taken over."""

    batch: PositiveInt | None = 16
    """How many remembered examples of each past task are drawn for each step; null takes all, as the paper
    does, at their cost. The default is our own."""
    margin: NonNegativeFloat = 0.0
    """The margin γ, which the paper adds to the dual solution so that past losses go down rather than
    stay."""


class GEM(GradientMemory):
    """Change each gradient as little as possible so that no past task's loss rises (GEM).

    With g the step's gradient and the rows of G those of the past tasks' remembered examples, the step takes
    the g̃ nearest to g with G g̃ ≥ 0: g̃ = Gᵀv + g, where v ≥ 0 minimises ½ vᵀGGᵀv + (Gg)ᵀv. One
    more backward pass for each past task and step, and memory for their gradients.
    """

    Options: ClassVar[type[Options]] = GemOptions

    def changed(self, learner: Learner) -> bool:
        """Project the gradient onto what no past task objects to."""
        references = [self.reference(learner, examples) for examples in self.memory.values()]
        gradient = learner.gathered()
        against = np.array([learner.dot(gradient, reference) for reference in references])
        if (against >= 0).all():
            return False
        gram = np.array([[learner.dot(one, other) for other in references] for one in references])
        for weight, reference in zip(dual(gram, against) + self.options.margin, references, strict=True):
            for name, value in gradient.items():
                value.add_(reference[name], alpha=float(weight))
        return True


def dual(gram: Floats, against: Floats) -> Floats:
    """The v ≥ 0 that minimises ½ vᵀPv + qᵀv, by the exact active-set method of Lawson and Hanson.

    It is a least-squares problem: with P = AᵀA, minimise ‖A v + b‖ where Aᵀb = q. Each row of G is made
    unit-length first, so that tasks of very different losses do not spoil the numbers.

    Args:
        gram: P = GGᵀ, positive semi-definite, perhaps singular [tasks, tasks].
        against: q = Gg [tasks].
    """
    from scipy.optimize import nnls

    lengths = np.sqrt(np.diag(gram))
    lengths[lengths == 0] = 1
    values, vectors = np.linalg.eigh(gram / np.outer(lengths, lengths))
    kept = values > RANK_TOLERANCE * values.max()
    roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
    a = roots[:, None] * vectors.T
    b = vectors.T @ (against / lengths) / roots
    solution: Floats = nnls(a, -b)[0] / lengths
    return solution
