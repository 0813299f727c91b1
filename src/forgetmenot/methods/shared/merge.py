"""The common base of merging methods: the weights that a stage changes, and how task vectors are merged.

A task vector τ = θ − θ₀ is what fine-tuning added to the base model, tensor by tensor (Ilharco et al. 2023,
arXiv 2212.04089). With LoRA it is that of the weights themselves, α/r · B A: averages of A and of B are not
the average of their products. Merged products have no small rank, so they go into the weights, and LoRA needs
`adapter.per_stage: merge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

Vector: TypeAlias = "Mapping[str, Tensor]"


def weights(learner: Learner) -> dict[str, Tensor]:
    """A copy of the weights that a stage changes, as they compute: adapters are added to their layers."""
    layers = adapted_layers(learner)
    if not layers:
        return {name: p.detach().clone() for name, p in learner.trainable().items()}
    return {name: layer.get_base_layer().weight.detach() + _product(layer) for name, layer in layers.items()}


def replace(learner: Learner, values: Vector) -> None:
    """Put values in place of what `weights` gives; adapters then add nothing, as when they began."""
    import torch

    layers = adapted_layers(learner)
    present = {name: layer.get_base_layer().weight for name, layer in layers.items()} or learner.trainable()
    with torch.no_grad():
        for name, value in values.items():
            present[name].copy_(value)
        for layer in layers.values():
            (adapter,) = layer.active_adapters
            if adapter in layer.lora_B:
                layer.lora_B[adapter].weight.zero_()
            else:  # of an embedding, it is A that PEFT begins with at 0
                layer.lora_embedding_A[adapter].zero_()


def adapted_layers(learner: Learner) -> dict[str, LoraLayer]:
    """The layers with a LoRA adapter, by name; none in full fine-tuning."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in learner.model.named_modules() if isinstance(module, LoraLayer)}


def _product(layer: LoraLayer) -> Tensor:
    """α/r · B A of a layer's only adapter, in the shape of its weight."""
    (adapter,) = layer.active_adapters
    product: Tensor = layer.get_delta_weight(adapter).detach()
    return product


def moved(start: Vector, vector: Vector, scale: float = 1.0) -> dict[str, Tensor]:
    """A model moved along a task vector: start + scale · vector."""
    return {name: start[name] + scale * value for name, value in vector.items()}


def difference(end: Vector, start: Vector) -> dict[str, Tensor]:
    """The task vector end − start."""
    return {name: value - start[name] for name, value in end.items()}


def interpolated(start: Vector, end: Vector, share: float) -> dict[str, Tensor]:
    """Between two models: (1 − share) · start + share · end."""
    import torch

    return {name: torch.lerp(start[name], value, share) for name, value in end.items()}


def vector_sum(vectors: Sequence[Vector]) -> dict[str, Tensor]:
    """Σₜ τₜ."""
    import torch

    return {name: torch.stack([vector[name] for vector in vectors]).sum(0) for name in vectors[0]}


def trimmed(vector: Vector, density: float) -> dict[str, Tensor]:
    """The share `density` of a vector's entries, those largest in magnitude over all tensors; the rest 0."""
    import torch

    magnitudes = torch.cat([value.abs().flatten() for value in vector.values()])
    kept = max(1, int(density * len(magnitudes)))
    least = magnitudes.kthvalue(len(magnitudes) - kept + 1).values
    return {name: torch.where(value.abs() >= least, value, 0) for name, value in vector.items()}


def elected(vectors: Sequence[Vector]) -> dict[str, Tensor]:
    """TIES' election and disjoint mean: each entry's mean over those vectors that have the sum's sign there.

    Zeros have no say; where the sum is 0 there is no sign to elect, and the result is 0.
    """
    import torch

    result = {}
    for name in vectors[0]:
        stacked = torch.stack([vector[name] for vector in vectors])
        agreeing = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
        result[name] = (stacked * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
    return result


def dropped(vector: Vector, rate: float, generator: torch.Generator) -> dict[str, Tensor]:
    """DARE: each entry is set to 0 with probability `rate`, the others are divided by 1 − rate.

    Args:
        vector: A task vector.
        rate: Below 1; at 0 nothing is drawn.
        generator: On the CPU, whatever the vector's device.
    """
    import torch

    if rate == 0:
        return dict(vector)
    return {
        name: value * (torch.rand(value.shape, generator=generator) >= rate).to(value) / (1 - rate)
        for name, value in vector.items()
    }


def largest(vectors: Sequence[Vector]) -> dict[str, Tensor]:
    """MagMax: each entry from the vector in which it is largest in magnitude, the earliest of equals."""
    import torch

    result = {}
    for name in vectors[0]:
        stacked = torch.stack([vector[name] for vector in vectors])
        result[name] = stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0]
    return result
