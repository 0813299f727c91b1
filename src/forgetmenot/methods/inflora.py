"""InfLoRA: each adapter learns in the directions that its own task's inputs need and those before do not.

Liang and Li 2024, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning", CVPR, arXiv
2404.00228. (The paper calls B what reads the inputs; here it is A, as in PEFT.) With H the inputs of a layer
on the new task, before that is learned, and M an orthonormal basis of what the inputs of earlier tasks need,

    Ĥ = H − M Mᵀ H,    the rows of A: the first r left singular vectors of Ĥ, divided by √3.

A stays and B learns, from 0 on: as the paper shows, that tunes the weight itself, within the span of A. This
lies outside M, so that inputs in M are answered as before, and of what is left it is what H needs most. After
the task M gets the fewest further directions with which it holds ε of the squared norm of the task's inputs,
by the rule of GPM (`shared/layer_inputs.py`). The paper's DualGPM spans the same; it keeps M's complement
where that has fewer directions.

By its official code (github.com/liangyanshuo/InfLoRA, `methods/inflora.py`) A has the size that LoRA's random
A has on average, which is where √3 comes from, and keys and values learn; here all of `adapter.targets` do.
The code puts the Gram matrix H Hᵀ where the formulas have H, so that large singular values count for more,
and raises ε linearly to 1 over a known number of tasks; here H is H, and ε stays, since tasks may be added
later. Where Ĥ has fewer than r directions the other rows of A are 0. We have not seen the numbers of the
paper's equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetmenot.methods.shared.layer_inputs import ROUNDING, extend
from forgetmenot.methods.shared.lora_layers import learning
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.placed_lora import PlacedLora, PlacedOptions
from forgetmenot.settings import Number

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class InfLoraOptions(PlacedOptions):
    """How much of each task is kept clear of."""

    threshold: Number = Field(default=0.97, ge=0, le=1)
    """ε, the part of the squared norm of each layer's inputs that later tasks leave as it is. At 1 nothing
    changes that these inputs see. The default is our own."""


class InfLora(PlacedLora):
    """Learn each task where its inputs are and earlier ones are not (InfLoRA)."""

    Options: ClassVar[type[Options]] = InfLoraOptions
    keeps = "directions of each layer's inputs: at most its width, squared"

    def with_one_more(self, kept: Tensor | None, gram: Tensor) -> Tensor:
        """The directions that the task needs, behind those before."""
        return extend(kept, gram.cpu(), self.options.threshold)

    def place(self, learner: Learner, layers: Mapping[str, LoraLayer], stage: Stage) -> None:
        """Let A read what the task's inputs need besides, and stay there."""
        import torch

        found = {
            name: free_directions(
                torch.stack(grams).sum(0), self.kept.get(name), layers[name].r[learning(layers[name])]
            )
            for name, grams in self.moments(learner, layers, stage, stage.data)
            if grams
        }
        missing = 0.0
        for name, rows in found.items():
            a = layers[name].lora_A[learning(layers[name])].weight
            missing += float((rows.norm(dim=1) == 0).double().mean()) / len(found)
            with torch.no_grad():
                a.copy_(rows / 3**0.5)
            a.requires_grad_(False)
        if missing:
            self.notes.append(
                f"{missing:.1%} of the adapters' rank stays unused: there the task's inputs need no further "
                "direction that is free."
            )


def free_directions(gram: Tensor, basis: Tensor | None, rank: int) -> Tensor:
    """The directions that inputs need most, of those outside a basis.

    Args:
        gram: H Hᵀ, in fp64 [width, width].
        basis: M, orthonormal columns [width, directions], or None.
        rank: How many at most.

    Returns:
        Orthonormal rows, and then zeros where there are fewer: fp64 [rank, width].
    """
    import torch

    outside = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if basis is not None:
        columns = basis.to(gram)
        outside -= columns @ columns.T
    values, vectors = torch.linalg.eigh(outside @ gram @ outside)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    rows: Tensor = (vectors * (values > ROUNDING * gram.trace())).T
    return rows
