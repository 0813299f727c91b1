"""MagMax: train task after task, and take each weight's largest change since the base.

Marczak et al. (2024), "MagMax: Leveraging Model Merging for Seamless Continual Learning", ECCV, arXiv
2407.06322:

    θₜ trained from θₜ₋₁ (not from the merged model),    τₜ = θₜ − θ₀,
    θ  = θ₀ + λ τ,    τ entry by entry the τₜ of largest magnitude.
"""

from collections.abc import Sequence
from typing import ClassVar

from forgetmenot.methods.shared.merge import Stream, Vector, largest
from forgetmenot.methods.shared.task_vectors import MergingOptions, TaskVectors
from forgetmenot.settings import NonNegativeFloat


class MagMax(TaskVectors):
    """Train task after task, and keep each weight's largest change since the base (MagMax)."""

    sequential: ClassVar[bool] = True

    class Options(MergingOptions):
        """The settings of `magmax`."""

        scale: NonNegativeFloat = 1.0
        """The factor λ of what is merged; 0 is the base model. The default is our own; the authors'
        code has 0.5."""

    def merged(self, vectors: Sequence[Vector]) -> Stream:
        """The entries of largest magnitude."""
        return largest([vector.items() for vector in vectors])
