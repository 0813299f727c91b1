"""The common base of merging methods: what a stage learned, and how task vectors become one.

A task vector τ = θ − θ₀ is what fine-tuning added to the base model, tensor by tensor (Ilharco et al. 2023,
arXiv 2212.04089). With LoRA it is that of the weights themselves, α/r · B A: averages of A and of B are not
the average of their products. Merged products have no small rank, so they go into the weights, and LoRA needs
`adapter.per_stage: merge`.

Products are as large as the model, the factors hundreds of times smaller. So the factors are what is kept, on
the CPU, and merging goes through the model one tensor at a time: a vector on its way is a stream of names and
tensors, each formed on the device when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

Vector: TypeAlias = "Mapping[str, Tensor]"
Stream: TypeAlias = "Iterable[tuple[str, Tensor]]"
"""A vector's names and tensors, once, in the order of the names."""

LEFT, RIGHT = ".left", ".right"
MAGNITUDES = 2**16
"""How many classes magnitudes are counted in, twice; fp32 has the square of it."""


class Formed(Mapping[str, "Tensor"]):
    """A vector that is the sum of what several stages learned, each tensor formed when it is asked for.

    Args:
        parts: What `learned` gave.
        device: Where tensors are formed.
    """

    def __init__(self, parts: Sequence[Vector], device: torch.device) -> None:
        self.parts, self.device = parts, device
        self.names = sorted({name.removesuffix(LEFT).removesuffix(RIGHT) for part in parts for name in part})

    def __getitem__(self, name: str) -> Tensor:
        """One tensor, in the shape of its weight."""
        first, *others = (self._formed(part, name) for part in self.parts)
        return sum(others, start=first)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _formed(self, part: Vector, name: str) -> Tensor:
        if name in part:
            return part[name].to(self.device)
        return part[name + LEFT].to(self.device) @ part[name + RIGHT].to(self.device)


def weights(learner: Learner) -> dict[str, Tensor]:
    """The weights that a stage changes, as they lie in the model: without what adapters add."""
    layers = adapted_layers(learner)
    found = {name: layer.get_base_layer().weight for name, layer in layers.items()} or learner.trainable()
    return {name: value.detach() for name, value in found.items()}


def copied(values: Vector) -> dict[str, Tensor]:
    """A copy on the CPU."""
    return {name: value.to("cpu", copy=True) for name, value in values.items()}


def learned(learner: Learner, start: Vector) -> dict[str, Tensor]:
    """What training has added, on the CPU: the factors of adapters, else the difference from `start`."""
    layers = adapted_layers(learner)
    if not layers:
        now = weights(learner)
        return {name: (value - start[name].to(value.device)).cpu() for name, value in now.items()}
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        left, right = _factors(layer)
        found |= copied({name + LEFT: left, name + RIGHT: right})
    return found


def replace(learner: Learner, values: Stream) -> None:
    """Put values in place of the weights; adapters then add nothing, as when they began."""
    import torch

    present = weights(learner)
    with torch.no_grad():
        for name, value in values:
            present[name].copy_(value)
        for layer in adapted_layers(learner).values():
            (adapter,) = layer.active_adapters
            if adapter in layer.lora_B:
                layer.lora_B[adapter].weight.zero_()
            else:  # of an embedding, it is A that PEFT begins with at 0
                layer.lora_embedding_A[adapter].zero_()


def adapted_layers(learner: Learner) -> dict[str, LoraLayer]:
    """The layers with a LoRA adapter, by name; none in full fine-tuning."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in learner.model.named_modules() if isinstance(module, LoraLayer)}


def _factors(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """Two factors of α/r · B A of a layer's only adapter, whose product has the shape of its weight."""
    (adapter,) = layer.active_adapters
    if adapter in layer.lora_A:
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        transposed = layer.fan_in_fan_out
    else:
        a, b, transposed = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter], True
    a, b = a.detach(), b.detach() * layer.scaling[adapter]
    return (a.T, b.T) if transposed else (b, a)


def moved(start: Vector, vector: Stream, scale: float = 1.0) -> Stream:
    """A model moved along a task vector: start + scale · vector."""
    return ((name, start[name].to(value.device) + scale * value) for name, value in vector)


def interpolated(start: Vector, end: Vector, share: float) -> Stream:
    """Between two models: (1 − share) · start + share · end."""
    import torch

    return ((name, torch.lerp(start[name].to(value.device), value, share)) for name, value in end.items())


def vector_sum(vectors: Sequence[Stream]) -> Stream:
    """Σₜ τₜ."""
    return ((name, stacked.sum(0)) for name, stacked in _together(vectors))


def trimmed(vector: Vector, density: float) -> Stream:
    """The share `density` of a vector's entries, those largest in magnitude over all tensors; the rest 0."""
    import torch

    least = least_kept(vector, density)
    return ((name, torch.where(value.abs().float() >= least, value, 0)) for name, value in vector.items())


def least_kept(vector: Vector, density: float) -> float:
    """The smallest magnitude, in fp32, among the share `density` of entries that are largest in magnitude.

    Counted in two passes over the tensors, for which all magnitudes need not be there at once: non-negative
    fp32 numbers are in the order of their bits, of which the upper half is counted first.
    """
    import torch

    kept = max(1, int(density * sum(value.numel() for value in vector.values())))
    above, upper = _bucket((_bits(value) >> 16 for value in vector.values()), kept)
    within = (bits[bits >> 16 == upper] & 0xFFFF for bits in map(_bits, vector.values()))
    _, lower = _bucket(within, kept - above)
    return float(torch.tensor([(upper << 16) + lower], dtype=torch.int32).view(torch.float32))


def _bits(values: Tensor) -> Tensor:
    import torch

    return values.abs().float().flatten().view(torch.int32)


def _bucket(classes: Iterable[Tensor], kept: int) -> tuple[int, int]:
    """The class that holds the `kept`-th largest of numbers below `MAGNITUDES`, and how many lie above it."""
    import torch

    counts = torch.stack([torch.bincount(one, minlength=MAGNITUDES) for one in classes]).sum(0)
    reached = counts.flip(0).cumsum(0)
    place = int((reached < kept).sum())
    return int(reached[place - 1]) if place else 0, MAGNITUDES - 1 - place


def elected(vectors: Sequence[Stream]) -> Stream:
    """TIES' election and disjoint mean: each entry's mean over those vectors that have the sum's sign there.

    Zeros have no say; where the sum is 0 there is no sign to elect, and the result is 0.
    """
    for name, stacked in _together(vectors):
        agreeing = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
        yield name, (stacked * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


def dropped(vector: Vector, rate: float, generator: torch.Generator) -> Stream:
    """DARE: each entry is set to 0 with probability `rate`, the others are divided by 1 − rate.

    Args:
        vector: A task vector.
        rate: Below 1; at 0 nothing is drawn.
        generator: On the CPU, whatever the vector's device.
    """
    import torch

    for name, value in vector.items():
        if rate == 0:
            yield name, value
        else:
            kept = torch.rand(value.shape, generator=generator) >= rate
            yield name, value * kept.to(value) / (1 - rate)


def largest(vectors: Sequence[Stream]) -> Stream:
    """MagMax: each entry from the vector in which it is largest in magnitude, the earliest of equals."""
    return (
        (name, stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0])
        for name, stacked in _together(vectors)
    )


def _together(vectors: Sequence[Stream]) -> Stream:
    """The tensors of one name of all vectors, in one [vectors, …], name after name."""
    import torch

    for pairs in zip(*vectors, strict=True):
        (name,) = {name for name, _ in pairs}
        yield name, torch.stack([value for _, value in pairs])
