"""TIES-merging: trim what each task changed, elect a sign for each weight, average those that agree.

Yadav et al. (2023), "TIES-Merging: Resolving Interference When Merging Models", NeurIPS, arXiv 2306.01708:

    τ̂ₜ = the share `density` of τₜ's entries that are largest in magnitude, over all weights
    γ  = sign(Σₜ τ̂ₜ)
    θ  = θ₀ + λ · mean of τ̂ₜ over those t with sign(τ̂ₜ) = γ,  entry by entry.
"""

from collections.abc import Sequence

from pydantic import Field

from forgetmenot.methods.shared.merge import Stream, Vector, elected, trimmed
from forgetmenot.methods.shared.task_vectors import MergingOptions, TaskVectors
from forgetmenot.settings import NonNegativeFloat


class TIES(TaskVectors):
    """Train each task from the base, and merge: trim, elect signs, average what agrees (TIES)."""

    class Options(MergingOptions):
        """The settings of `ties`."""

        density: float = Field(default=0.2, gt=0, le=1)
        """The share of each task vector that is kept. The paper's."""
        scale: NonNegativeFloat = 1.0
        """The factor λ of what is merged; 0 is the base model. The paper's, where no data are left to choose
        it on."""

    def merged(self, vectors: Sequence[Vector]) -> Stream:
        """The disjoint mean of what is left after trimming."""
        return elected([trimmed(vector, self.options.density) for vector in vectors])
