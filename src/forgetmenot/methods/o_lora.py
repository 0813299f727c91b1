"""Each task learns in a subspace of its own: a new LoRA adapter, kept orthogonal to those before.

O-LoRA (Wang et al., Findings of EMNLP 2023, "Orthogonal Subspace Learning for Language Model Continual
Learning", arXiv 2310.14152). The rows of a layer's A (as PEFT names it: W + B A) span what its update reads
from the input; the paper adds λ Σ_{i<t} ‖A_i A_tᵀ‖² to the loss of task t, an unbounded sum that grows with
width, depth, rank and the number of tasks. Here it is normalised. With Q the orthonormal basis of the span of
all earlier A's of the same layer and a_1 … a_r the rows of the A that learns,

    overlap = mean over layers of 1/r Σ_k ‖Q a_k‖² / ‖a_k‖²,        penalty = λ · overlap:

the mean squared cosine between a row and the earlier subspace, in [0, 1] whatever the rank, the depth and the
number of tasks; 0 exactly where all are orthogonal, rank(Q)/width for random rows. Where the earlier tasks
fill the width there is nothing left to be orthogonal to, and it is 1 without a gradient.

Earlier adapters stay in place and frozen with `adapter.per_stage: new`, and are in the weights with `merge`;
either way Q is kept by the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.methods.shared.method import Options as BaseOptions
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

A_MATRICES = (".lora_A.", ".lora_embedding_A.")


class Options(BaseOptions):
    """How strongly subspaces are kept apart."""

    strength: NonNegativeFloat = 10.0
    """λ, in nats per token for a full overlap; 0 is plain training of new adapters. The default is our own,
    since the paper's refers to another scale: within twenty steps it takes random rows' overlap down to a
    twentieth, where 1 only halves it."""


class OLoRA(Method):
    """Train a new LoRA adapter for each task, kept orthogonal to the earlier ones (O-LoRA)."""

    Options = Options
    keeps: ClassVar[str] = "an orthonormal basis of its A's rows"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("new", "merge")}

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.bases: dict[str, Tensor] = {}

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Bring the bases to where the adapters are."""
        self.bases = {layer: basis.to(learner.device) for layer, basis in self.bases.items()}

    def penalty(self, learner: Learner) -> Tensor | None:
        """λ times the overlap with the earlier subspaces."""
        import torch

        if not self.bases:
            return None
        overlaps = [overlap(self.bases[layer], rows) for layer, rows in learning_rows(learner).items()]
        penalty: Tensor = self.options.strength * torch.stack(overlaps).mean()
        return penalty

    def end(self, learner: Learner, stage: Stage) -> None:
        """Add what was learned to the subspaces that later tasks keep clear of."""
        if self.options.strength == 0:
            return
        for layer, rows in learning_rows(learner).items():
            self.bases[layer] = extended(self.bases.get(layer), rows.detach())

    def state_dict(self) -> dict[str, Any]:
        """The basis of each layer, by its name."""
        return dict(self.bases)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the bases."""
        self.bases = dict(state)


def learning_rows(learner: Learner) -> dict[str, Tensor]:
    """The A that learns in each adapted layer, by the layer's name [rank, width]."""
    found = {}
    for name, value in learner.trainable().items():
        for mark in A_MATRICES:
            if mark in name:
                found[name.split(mark)[0]] = value
    return found


def overlap(basis: Tensor, rows: Tensor) -> Tensor:
    """Mean squared cosine between rows [r, width] and the span of an orthonormal basis [k, width]."""
    inside = (rows @ basis.T).square().sum(-1)
    return (inside / rows.square().sum(-1)).mean()


def extended(basis: Tensor | None, rows: Tensor) -> Tensor:
    """An orthonormal basis of the span of a basis [k, width] and further rows [r, width]."""
    import torch

    both = rows if basis is None else torch.cat([basis, rows / rows.norm(dim=-1, keepdim=True)])
    found: Tensor = torch.linalg.qr(both.double().T).Q.T.float()
    return found
