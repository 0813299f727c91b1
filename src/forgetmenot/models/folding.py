"""LoRA folded into the layers' own weights: one product for three, to score and to learn."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor
from torch.autograd.function import once_differentiable

FOLDED_BELOW = 1024
"""Up to which width LoRA is folded into a layer: beyond, its products cost a hundredth or two."""


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """Hold what LoRA adds in the layers' own weights, for passes without gradients, then put these back.

    A layer then is one product instead of three and two sums. Its numbers are the same up to the rounding of
    the sum; so only fp32 weights are folded, and narrow layers, where it is worth the copy. Left as they are:
    weights that something else uses as well, and adapters that a hook listens to or changes.
    """
    held = []
    try:
        with torch.no_grad():
            for layer in _foldable(model):
                active = [name for name in layer.active_adapters if name in layer.lora_A]
                if active:
                    weight = layer.get_base_layer().weight
                    held.append((layer, weight, weight.data))
                    weight.data = weight.data + sum(layer.get_delta_weight(name) for name in active)
                    layer.merged_adapters = active  # PEFT's word for weights that hold the adapter
        yield
    finally:
        for layer, weight, values in held:
            weight.data = values
            layer.merged_adapters = []


def _foldable(model: Any) -> Iterator[LoraLinear]:
    """The layers of a model whose adapters can be folded into their weights."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for layer in model.modules():
        if type(layer) is LoraLinear and not (layer.merged or layer.disable_adapters or layer.lora_variant):
            weight = layer.get_base_layer().weight
            narrow = min(weight.shape) < FOLDED_BELOW
            if weight.dtype == torch.float32 and narrow and uses[id(weight)] == 1 and not _hooked(layer):
                yield layer


def _hooked(layer: LoraLinear) -> bool:
    """Whether something listens to a layer's parts or changes what they give, forward or backward."""
    parts = (layer.get_base_layer(), *layer.lora_A.values(), *layer.lora_B.values())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, kind) for part in parts for kind in kinds)


@contextmanager
def learning_folded(model: Any) -> Iterator[Callable[[], None]]:
    """Let adapters learn through the layers' own weights plus what LoRA adds: W + s BA.

    A layer then is one product forward and one for its input's gradient, where PEFT has three and four with
    sums between. The gradients of A and B follow from the layer's input and its output's gradient. The sum is
    formed anew when other values are copied into its parts. Left as they are: what `folded` leaves, and
    layers with dropout on what their adapters get.

    Yields:
        What is to be called after each step of an optimizer, which PyTorch does not count as a change.
    """
    held = []
    for layer in _foldable(model):
        dropouts = any(isinstance(one, torch.nn.Dropout) for one in layer.lora_dropout.values())
        if not (layer.fan_in_fan_out or dropouts):
            held.append((layer, vars(layer).get("forward"), _FoldedForward(layer, layer.forward)))

    def stepped() -> None:
        for *_, forward in held:
            forward.state = ()

    for layer, _, forward in held:
        layer.forward = forward
    try:
        yield stepped
    finally:
        for layer, before, _ in held:
            if before is None:  # its class's: set on the layer it would hold the layer's weights for long
                del layer.forward
            else:
                layer.forward = before


class _FoldedForward:
    """A layer's forward with its adapters in its weight, which it keeps until one of them changes."""

    def __init__(self, layer: LoraLinear, plain: Callable[..., Tensor]) -> None:
        self.layer, self.plain = layer, plain
        self.weight: Tensor | None = None
        self.state: tuple[Any, ...] = ()  # of what the weight was formed; empty after a step

    def __call__(self, x: Tensor, *positional: Any, **named: Any) -> Tensor:
        layer = self.layer
        if layer.merged or layer.disable_adapters or positional or named or _hooked(layer):
            return self.plain(x, *positional, **named)
        base = layer.get_base_layer()
        parts = [
            (layer.scaling[name], layer.lora_A[name].weight, layer.lora_B[name].weight)
            for name in layer.active_adapters
            if name in layer.lora_A
        ]
        values = [base.weight, *(value for _, *pair in parts for value in pair)]
        state = (*((value.data_ptr(), value._version) for value in values), *(scale for scale, *_ in parts))
        if state != self.state:
            # In its place after a step; where two take turns within one, a graph may hold the other's.
            self._form(base.weight, parts, anew=self.state != ())
            self.state = state
        learning = [part for part in parts if any(value.requires_grad for value in part[1:])]
        pairs = [value for _, *pair in learning for value in pair]
        found: Tensor = _Folded.apply(  # type: ignore[no-untyped-call]
            x, self.weight, base.bias, [scale for scale, *_ in learning], *pairs
        )
        return found

    def _form(self, base: Tensor, parts: list[tuple[float, Tensor, Tensor]], *, anew: bool) -> None:
        with torch.no_grad():
            weight = torch.empty_like(base) if anew or self.weight is None else self.weight
            weight.copy_(base)
            for scale, a, b in parts:
                weight.addmm_(b, a, alpha=scale)
        self.weight = weight


class _Folded(torch.autograd.Function):
    """x W'ᵀ + bias with W' = W + Σ s BA; its gradients are those of x, and of each A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scales: list[float], *pairs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, *pairs)
        ctx.scales = scales
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable  # the gradient of a gradient would lack what W' has of A and B
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, *pairs = ctx.saved_tensors
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        found = []
        for scale, a, b in zip(ctx.scales, pairs[::2], pairs[1::2], strict=True):
            found += [scale * ((rows @ b).T @ inputs), scale * (rows.T @ (inputs @ a.T))]
        return (gradient @ weight if ctx.needs_input_grad[0] else None, None, None, None, *found)
