"""Orthogonal gradient descent (OGD; Farajtabar et al. 2020, arXiv 1910.07104)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.projection import Projection
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.settings import NonNegativeInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

DEPENDENT = 1e-3
"""If less than this share of a gradient's norm is new, its direction is dropped as rounding noise."""


class OgdOptions(Options):
    """How much of each task is protected."""

    memory: NonNegativeInt = 32
    """The gradients of how many examples of each task are remembered, each as large as what learns. 0 is
    `sequential`. The default is our own; the paper takes 200."""


class OGD(Projection):
    """Step only orthogonally to the gradients of past answers' log-likelihoods (OGD).

    After a task, gradients of some of its examples are made orthonormal by Gram–Schmidt and kept; later each
    gradient g becomes g − Σ (g·v) v (algorithm 1). To first order no remembered log-likelihood changes. The
    paper's gradient is that of the right class's logit; here it is that of the whole answer's log-likelihood,
    which is what a language model is scored by. No past example is kept.
    """

    Options: ClassVar[type[Options]] = OgdOptions
    keeps = "gradients of some of its examples, each as large as what learns"
    preferences = False

    def check(self, adapter: AdapterSettings) -> None:
        """Gradients mean something only for the weights that they are gradients of."""
        if adapter.per_stage != "continue":
            raise UserError(
                f"adapter.per_stage: ogd remembers gradients of one adapter, which {adapter.per_stage!r} "
                "would replace; set it to continue."
            )

    def project(self, values: Mapping[str, Tensor]) -> None:
        """Take out the remembered directions."""
        import torch

        basis = {name: self.basis[name].to(value).flatten(1) for name, value in values.items()}
        overlap = torch.stack([basis[name] @ value.flatten() for name, value in values.items()]).sum(0)
        for name, value in values.items():
            value.sub_((overlap @ basis[name]).view_as(value))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Remember the directions that the stage's examples need and the past's do not span."""
        import torch

        examples = [example for task in stage.data.values() for example in task]
        drawn = np.random.default_rng([self.seed, stage.number]).permutation(len(examples))
        for k in drawn[: self.options.memory].tolist():
            direction = learner.gradient_of([examples[k]])
            length = learner.norm(direction)
            if self.basis:
                for _ in range(2):  # the second time takes out what rounding left
                    self.project(direction)
            remaining = learner.norm(direction)
            if remaining > DEPENDENT * length:
                for name, value in direction.items():
                    before = self.basis.get(name, value.new_empty(0, *value.shape)).to(value)
                    self.basis[name] = torch.cat([before, value[None] / remaining])
