"""LoRA-Null: each adapter reads only what earlier inputs hardly have.

Tang et al. 2026, "Put the Space of LoRA Initialization to the Extreme to Preserve Pre-trained Knowledge",
AAAI, arXiv 2503.02659 (first called "LoRA-Null: Low-Rank Adaptation via Null Space for Large Language
Models"). With X the inputs of a layer on what is to be kept, and N the r directions that X has least of (its
last left singular vectors),

    W N Nᵀ = U S Vᵀ,    B₀ = U √S,    A₀ = √S Vᵀ,    W′ = W − B₀ A₀,    and W′ + B A learns from there on.

The rows of A₀ lie in N, so A₀ X ≈ 0: while A stays (`down: frozen`; v2 in its code), W′ + B A answers X as W
does, whatever B learns. The formulas are those of the official code (github.com/HungerPWAY/LoRA-Null,
`decompose_to_adapter2` with `--singular_aware`); we have not seen the numbers of the paper's equations.

While A stays, W′ + B A₀ = W + (B − B₀) A₀, and without weight decay the optimizer's steps of B are those of
B − B₀: so this is plain LoRA with A = A₀ and a B that begins at 0, of the same rank. Where A learns as well
(`down: learned`; v1), the adapter is saved with twice the rank (`shared/offset_lora.py`). With PEFT's scale
s = alpha / rank both factors are divided by √s, so that s B₀ A₀ = W N Nᵀ, as PEFT does in CorDA; in the
official code s is 1.

Ours is the sequence: the paper tunes once, and X are questions of NQ Open that stand for what the base knows.
Here each task has an adapter of its own, and X are the inputs of all tasks before it and of `sources`. Where
more than r directions have no inputs at all, which r of them the decomposition gives is chance; we take all
of these as N, and of W N Nᵀ the r largest singular values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from forgetmenot.methods.shared.layer_inputs import ROUNDING, square_root
from forgetmenot.methods.shared.lora_layers import learning, weight_before
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.offset_lora import OffsetLora
from forgetmenot.methods.shared.placed_lora import PlacedOptions

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class LoraNullOptions(PlacedOptions):
    """What is kept clear of, and by which part of the adapter."""

    down: Literal["frozen", "learned"] = "frozen"
    """Whether A, which reads the inputs, stays as it begins (`frozen`), so that what it does not read is
    safe, or learns too. The paper has both."""


class LoraNull(OffsetLora):
    """Begin each adapter in the directions that earlier inputs have least of (LoRA-Null)."""

    Options: ClassVar[type[Options]] = LoraNullOptions
    keeps = "second moments of each layer's inputs: in all at most its width, squared"

    def with_one_more(self, kept: Tensor | None, gram: Tensor) -> Tensor:
        """A square root of the sum."""
        return square_root(gram if kept is None else kept.double() @ kept.double().T + gram).cpu()

    def place(self, learner: Learner, layers: Mapping[str, LoraLayer], stage: Stage) -> None:
        """Put A into what is free, and B where the weights then are, or at 0."""
        import torch

        if not self.kept:
            return
        factors = {}
        for name, layer in layers.items():
            adapter = learning(layer)
            root = self.kept[name].to(learner.device)
            factors[layer] = null_factors(weight_before(layer), root, layer.r[adapter])
        if self.options.down == "learned":
            self.begin_with(learner, factors)
            return
        with torch.no_grad():
            for layer, (_, down) in factors.items():
                adapter = learning(layer)
                layer.lora_A[adapter].weight.copy_(down / layer.scaling[adapter] ** 0.5)
                layer.lora_A[adapter].weight.requires_grad_(False)


def null_factors(weight: Tensor, root: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of what a weight does to the directions that its inputs have least of.

    Args:
        weight: W [outputs, inputs].
        root: A square root of the inputs' second moments, X Xᵀ = root · rootᵀ [inputs, any].
        rank: r, at most the lesser of inputs and outputs.

    Returns:
        U √S [outputs, r] and √S Vᵀ [r, inputs], in fp64.
    """
    import torch

    moments = root.double() @ root.double().T
    values, vectors = torch.linalg.eigh(moments)  # from the least on
    without = int((values <= ROUNDING * values.sum()).sum())
    free = vectors[:, : max(rank, without)]
    left, sizes, right = torch.linalg.svd(weight.double() @ free, full_matrices=False)
    scale = sizes[:rank].sqrt()
    return left[:, :rank] * scale, scale[:, None] * (right[:rank] @ free.T)
