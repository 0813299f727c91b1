"""DARE: drop most of what each task changed at random, rescale the rest, then merge.

Yu et al. (2024), "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free
Lunch", ICML, arXiv 2311.03099:

    τ̂ₜ = m ⊙ τₜ / (1 − p),   m ~ Bernoulli(1 − p),        E[τ̂ₜ] = τₜ

and then θ₀ + λ Σₜ τ̂ₜ as in `task-arithmetic`, or signs elected and agreeing entries averaged as in `ties`,
whose trimming it takes the place of. A task's mask follows from the run's seed and the task's place alone: it
is the same at every later stage.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from forgetmenot.methods.shared.merge import Stream, Vector, dropped, elected, vector_sum
from forgetmenot.methods.shared.task_vectors import MergingOptions, TaskVectors
from forgetmenot.settings import NonNegativeFloat, Number


class DARE(TaskVectors):
    """Train each task from the base, and merge random rescaled shares of the weight changes (DARE)."""

    class Options(MergingOptions):
        """The settings of `dare`."""

        rate: Number = Field(default=0.5, ge=0, lt=1)
        """The share p that is dropped; 0 with merge: linear is `task-arithmetic`. The default is our own."""
        merge: Literal["linear", "ties"] = "linear"
        """How what is left is merged: by its sum (`linear`), or the mean of entries with the elected sign
        (`ties`)."""
        scale: NonNegativeFloat = 0.4
        """The factor λ of what is merged; 0 is the base model. The default is that of `task-arithmetic`; with
        ties 1 is usual."""

    def merged(self, vectors: Sequence[Vector]) -> Stream:
        """What is left of the vectors, added up or elected."""
        import torch

        left = []
        for place, vector in enumerate(vectors):
            seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
            left.append(dropped(vector, self.options.rate, torch.Generator().manual_seed(seed)))
        return vector_sum(left) if self.options.merge == "linear" else elected(left)
