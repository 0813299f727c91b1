"""The common base of methods whose adapters begin with a part of the weights, W = W′ + s B₀ A₀.

What learns is W′ + s B A from B₀, A₀ on. W′ is not stored: as PEFT converts such adapters, the change is one
plain LoRA of twice the rank on the weights as they were,

    W′ + s B A  =  W + s [B, −B₀] [A; A₀],

so that a stage's adapter stands on the published model. The second half of each factor does not learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetmenot.methods.shared.lora_layers import learning
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.placed_lora import PlacedLora

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class OffsetLora(PlacedLora):
    """Let adapters begin with a part of the weights, and take that part off these."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self._halves: list[tuple[Tensor, tuple[slice, ...]]] = []  # weights, and what of each does not learn
        self._values: list[Tensor] = []

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Forget which adapters the stage before has doubled."""
        self._halves = []
        super().adapt(learner, stage)

    def begin_with(self, learner: Learner, factors: Mapping[LoraLayer, tuple[Tensor, Tensor]]) -> None:
        """Double the adapters that learn.

        Args:
            learner: Has them.
            factors: Of each layer B₀ [outputs, rank] and A₀ [rank, inputs]; B₀ A₀ is the part of its weight.
        """
        import torch

        for layer, (up, down) in factors.items():
            adapter, rank = learning(layer), len(down)
            root = layer.scaling[adapter] ** 0.5
            a, b = layer.lora_A[adapter], layer.lora_B[adapter]
            a.weight = torch.nn.Parameter(torch.cat([down, down]).float() / root)
            b.weight = torch.nn.Parameter(torch.cat([up, -up], dim=1).float() / root)
            a.out_features = b.in_features = layer.r[adapter] = 2 * rank
            layer.lora_alpha[adapter] *= 2  # which leaves the scale, alpha / rank, as it was
            self._halves += [(a.weight, (slice(rank, None),)), (b.weight, (slice(None), slice(rank, None)))]
        config = learner.model.peft_config[adapter]
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha

    def gradients(self, learner: Learner) -> None:
        """Leave what the adapters begin with out of the step."""
        self._values = []
        for weight, half in self._halves:
            if weight.grad is not None:
                weight.grad[half] = 0
            self._values.append(weight.detach()[half].clone())

    def stepped(self, learner: Learner) -> None:
        """Take back what weight decay has made of it."""
        import torch

        with torch.no_grad():
            for (weight, half), value in zip(self._halves, self._values, strict=True):
                weight[half] = value

    def training_state(self) -> dict[str, Any]:
        """Nothing: what stays is among the weights."""
        return {}
