"""CorDA: adapters begin with what the weights do least with the inputs that are to be kept.

Yang et al. 2024, "CorDA: Context-Oriented Decomposition Adaptation of Large Language Models for Task-Aware
Parameter-Efficient Fine-tuning", NeurIPS, arXiv 2406.05223, in its knowledge-preserved mode (KPM), as PEFT
has it (`init_lora_weights="corda"`). With C = E[x xᵀ] the second moments of a layer's inputs,

    W C = U S Vᵀ,    B₀ = U_r √S_r,    A₀ = √S_r V_rᵀ C⁻¹    of the r least singular values,
    W′ = W − B₀ A₀,    and W′ + B A learns from there on, both factors.

A hundredth of its mean is added to C's diagonal, as in PEFT, and with PEFT's scale s = alpha / rank the
factors are divided by √s, so that s B₀ A₀ is the part of W. What is saved is plain LoRA of twice the rank on
the weights as they were (`shared/offset_lora.py`), as PEFT converts such adapters.

PEFT (and the paper's code) divides the inputs of each calibration text by the largest of them. Here C has the
mean diagonal 1 over all tasks, each of which counts alike; on how C is scaled depends only how much of
B₀ A₀ is in B and how much in A. And the sequence is ours: the paper tunes once, with C of questions (such as
NQ Open) that stand for what the base knows. Here each task has an adapter of its own, and C is of all tasks
before it and of `sources`; the first task, if there are none, learns a plain LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetmenot.methods.shared.lora_layers import learning, weight_before
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.offset_lora import OffsetLora

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

DAMPING = 0.01
"""The part of its mean that is added to the diagonal of the second moments; PEFT's."""


class CorDA(OffsetLora):
    """Begin each adapter with what the weights do least with earlier inputs (CorDA, knowledge-preserved)."""

    keeps = "second moments of each layer's inputs: in all its width, squared"

    def with_one_more(self, kept: Tensor | None, gram: Tensor) -> Tensor:
        """The sum."""
        return (gram if kept is None else kept + gram).float().cpu()

    def place(self, learner: Learner, layers: Mapping[str, LoraLayer], stage: Stage) -> None:
        """Take the least part of each weight into its adapter."""
        if self.kept:
            self.begin_with(
                learner,
                {
                    layer: least_factors(
                        weight_before(layer), self.kept[name].to(learner.device), layer.r[learning(layer)]
                    )
                    for name, layer in layers.items()
                },
            )


def least_factors(weight: Tensor, moments: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of the part of a weight that does least with its inputs.

    Args:
        weight: W [outputs, inputs].
        moments: C up to its scale [inputs, inputs].
        rank: r, at most the lesser of inputs and outputs.

    Returns:
        U_r √S_r [outputs, r] and √S_r V_rᵀ C⁻¹ [r, inputs], in fp64.
    """
    import torch

    context = moments.double() * (len(moments) / moments.double().trace())
    context.diagonal().add_(DAMPING)
    left, sizes, right = torch.linalg.svd(weight.double() @ context, full_matrices=False)
    scale = sizes[-rank:].sqrt()
    return left[:, -rank:] * scale, torch.linalg.solve(context, right[-rank:].T * scale).T
