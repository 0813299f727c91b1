"""The forward pass of LoRA layers in place of PEFT's, for as long as a context lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook
from transformers.pytorch_utils import Conv1D

LINEAR = (torch.nn.Linear.forward, Conv1D.forward)
SAME_AS_LINEAR = ("FalconLinear",)
"""Classes whose own `forward` says the same."""


class Part(NamedTuple):
    """An active adapter of a layer: it adds `scale` B A to the layer's weight."""

    scale: float
    a: Tensor
    b: Tensor

    @property
    def learns(self) -> bool:
        """Whether one of the two has gradients."""
        return self.a.requires_grad or self.b.requires_grad


class LoraForward:
    """A layer's forward by what is formed of its adapters, which is kept until one of them changes.

    Whatever it does not know, an adapter that a hook listens to for example, PEFT computes.
    """

    def __init__(self, layer: LoraLinear, plain: Callable[..., Tensor]) -> None:
        self.layer, self.plain = layer, plain
        self.state: tuple[Any, ...] = ()  # of what was formed; empty after a step
        self._held: list[Tensor] = []  # of what: else its memory could come to hold other values

    def __call__(self, x: Tensor, *positional: Any, **named: Any) -> Tensor:
        """What the layer gives, in place of its `forward`."""
        layer = self.layer
        base = layer.get_base_layer()
        odd = layer.merged or layer.disable_adapters or positional or named or x.dim() < 2
        if (
            odd
            or layer.lora_variant
            or learns_itself(base)
            or altered(layer)
            or not self.takes(x, base.weight)
        ):
            return self.plain(x, *positional, **named)
        parts = [
            Part(layer.scaling[name], layer.lora_A[name].weight, layer.lora_B[name].weight)
            for name in layer.active_adapters
            if name in layer.lora_A
        ]
        values = [base.weight, *(value for part in parts for value in part[1:])]
        state = (*((value.data_ptr(), value._version) for value in values), *(part.scale for part in parts))
        if state != self.state:
            # In its place after a step; where two take turns within one, a graph may hold the other's.
            with torch.inference_mode(mode=False), torch.no_grad():  # what learns later may take it too
                self.form(base.weight, parts, anew=self.state != ())
                self._held = [value.detach() for value in values]
            self.state = state
        return self.answer(x, base, parts)

    def takes(self, x: Tensor, weight: Tensor) -> bool:
        """Whether this is a pass that it knows."""
        raise NotImplementedError

    def form(self, weight: Tensor, parts: list[Part], *, anew: bool) -> None:
        """Form what every pass needs until an adapter changes.

        Args:
            weight: The layer's own.
            parts: Its adapters.
            anew: Whether what was formed before may be in use still.
        """
        raise NotImplementedError

    def answer(self, x: Tensor, base: torch.nn.Linear, parts: list[Part]) -> Tensor:
        """What the layer gives."""
        raise NotImplementedError


@contextmanager
def answering_by(forward: type[LoraForward], layers: Iterator[LoraLinear]) -> Iterator[Callable[[], None]]:
    """Let layers answer by another forward.

    Yields:
        What is to be called after each step of an optimizer, which PyTorch does not count as a change.
    """
    held = [(layer, vars(layer).get("forward"), forward(layer, layer.forward)) for layer in layers]

    def stepped() -> None:
        for *_, one in held:
            one.state = ()

    for layer, _, one in held:
        layer.forward = one
    try:
        yield stepped
    finally:
        for layer, before, _ in held:
            if before is None:  # its class's: set on the layer it would hold the layer's weights for long
                del layer.forward
            else:
                layer.forward = before


def plain_lora(model: Any) -> Iterator[LoraLinear]:
    """The layers of a model that have LoRA as its paper says, in use and on a weight of its own."""
    for layer in model.modules():
        if type(layer) is not LoraLinear or layer.merged or layer.disable_adapters or layer.lora_variant:
            continue
        base = layer.get_base_layer()
        linear = type(base).forward in LINEAR or type(base).__name__ in SAME_AS_LINEAR
        biased = any(b.bias is not None for b in layer.lora_B.values())
        if linear and not biased and base is layer.base_layer:  # which may be another adapter's layer
            yield layer


def drops(layer: LoraLinear) -> bool:
    """Whether a layer has dropout on what its adapters get."""
    return any(isinstance(one, torch.nn.Dropout) for one in layer.lora_dropout.values())


def learns_itself(base: torch.nn.Module) -> bool:
    """Whether a layer's own weight or bias has gradients."""
    return any(value.requires_grad for value in base.parameters(recurse=False))


def altered(layer: LoraLinear) -> bool:
    """Whether something listens to a layer's parts or changes what they give, forward or backward."""
    parts = (
        layer.get_base_layer(),
        *layer.lora_A.values(),
        *layer.lora_B.values(),
        *layer.lora_dropout.values(),
    )
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = any(getattr(part, kind) for part in parts for kind in kinds)
    return hooked or any("forward" in vars(part) for part in parts) or _has_any_global_hook()  # type: ignore[no-untyped-call]
