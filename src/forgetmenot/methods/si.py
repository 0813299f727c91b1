"""Synaptic intelligence: hold each weight as firmly as its path lowered earlier losses.

Zenke, Poole and Ganguli (2017), "Continual Learning Through Synaptic Intelligence", ICML, arXiv 1703.04200.
Along the path of stage ν each parameter gathers what it contributed to the fall of the loss (eq. 3),

    ωₖ = −Σ_steps gₖ Δθₖ,    g: the loss's own gradient, without the penalty and before clipping

and at its end the importance grows (eq. 5), to be held against in the next stages (eq. 4):

    Ωₖ ← max(0, Ωₖ + ωₖ / (Δₖ² + ξ)),    L(θ) + c · Σₖ Ωₖ (θₖ − aₖ)²

where Δₖ is how far the parameter came in the stage and a are the weights at its end. The maximum is not in
the paper but in its authors' code: noise can make ω negative, and a negative Ω would push away for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetmenot.methods.shared.anchor import Importances, from_state, squared_distance, to_state
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.settings import NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class SI(Importances):
    """Penalize changes of the weights that lowered earlier losses most along their path (SI)."""

    name = "si"

    class Options(Options):
        """The settings of `si`."""

        strength: NonNegativeFloat = 1.0
        """The weight c of the penalty; 0 is `sequential`. Our default comes from no search; choose it on the
        `select` split (docs/protocol.md has a search)."""
        damping: PositiveFloat = 0.001
        """The damping ξ, against division by nothing where a parameter hardly moved. The authors' experiments
        have 0.1 and 0.001."""

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take up the importances of the stages before; the path begins here."""
        import torch

        super().begin(learner, stage)
        self.began_at = learner.snapshot()
        self.path = {name: torch.zeros_like(value) for name, value in self.began_at.items()}

    def penalty(self, learner: Learner) -> Tensor | None:
        """The penalty c · Σₖ Ωₖ (θₖ − aₖ)²; nothing in the first stage."""
        strength: float = self.options.strength
        if not strength:
            return None
        # The loss has gone backward and the penalty has not: what is gathered now is the loss's own gradient.
        self.gradient = {
            name: p.grad.clone() for name, p in learner.trainable().items() if p.grad is not None
        }
        self.before = learner.snapshot()
        if not self.importance:
            return None
        return strength * squared_distance(learner, self.anchor, self.importance)

    def stepped(self, learner: Learner) -> None:
        """Add what each parameter's step contributed to the fall of the loss."""
        if not self.options.strength:
            return
        for name, parameter in learner.trainable().items():
            if name in self.gradient:
                self.path[name] -= self.gradient[name] * (parameter.detach() - self.before[name])

    def end(self, learner: Learner, stage: Stage) -> None:
        """Turn the path into importances; the anchor is here."""
        if not self.options.strength:
            return
        self.anchor = learner.snapshot()
        gained = {
            name: path / ((self.anchor[name] - self.began_at[name]).square() + self.options.damping)
            for name, path in self.path.items()
        }
        self.importance = {
            name: (value + self.importance.get(name, 0.0)).clamp(min=0) for name, value in gained.items()
        }

    def training_state(self) -> dict[str, Any]:
        """The path so far."""
        return to_state(path=self.path)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.path = from_state(state, "path")
