"""Task arithmetic: the base model and the sum of what each task added to it.

Ilharco et al. (2023), "Editing Models with Task Arithmetic", ICLR, arXiv 2212.04089:

    θ = θ₀ + λ Σₜ τₜ,        τₜ = θₜ − θ₀,

each θₜ trained from θ₀.
"""

from collections.abc import Sequence

from forgetmenot.methods.shared.merge import Stream, Vector, vector_sum
from forgetmenot.methods.shared.task_vectors import MergingOptions, TaskVectors
from forgetmenot.settings import NonNegativeFloat


class TaskArithmetic(TaskVectors):
    """Train each task from the base, and add the scaled sum of the weight changes (task arithmetic)."""

    class Options(MergingOptions):
        """The settings of `task-arithmetic`."""

        scale: NonNegativeFloat = 0.4
        """The factor λ of what is merged; 0 is the base model. The default is what Yadav et al. (2023) take
        where no data are left to choose it on."""

    def merged(self, vectors: Sequence[Vector]) -> Stream:
        """Σₜ τₜ."""
        return vector_sum([vector.items() for vector in vectors])
