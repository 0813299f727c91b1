"""LoRA folded into the layers' own weights: one product for three, to score and to learn."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor
from torch.autograd.function import once_differentiable

from forgetmenot.models.lora_forward import LoraForward, Part, altered, answering_by, drops, plain_lora

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
    for layer in plain_lora(model):
        weight = layer.get_base_layer().weight
        narrow = min(weight.shape) < FOLDED_BELOW
        if weight.dtype == torch.float32 and narrow and uses[id(weight)] == 1 and not altered(layer):
            yield layer


def learning_folded(model: Any) -> AbstractContextManager[Callable[[], None]]:
    """Let adapters learn through the layers' own weights plus what LoRA adds: W + s BA.

    A layer then is one product forward and one for its input's gradient, where PEFT has three and four with
    sums between. The gradients of A and B follow from the layer's input and its output's gradient. The sum is
    formed anew when other values are copied into its parts. Left as they are: what `folded` leaves, and
    layers with dropout on what their adapters get.

    Yields:
        What is to be called after each step of an optimizer, which PyTorch does not count as a change.
    """
    layers = (one for one in _foldable(model) if not (one.fan_in_fan_out or drops(one)))
    return answering_by(_FoldedForward, layers)


class _FoldedForward(LoraForward):
    """x W'ᵀ with the adapters in W'."""

    weight: Tensor | None = None

    def takes(self, x: Tensor, weight: Tensor) -> bool:
        return True

    def form(self, weight: Tensor, parts: list[Part], *, anew: bool) -> None:
        whole = torch.empty_like(weight) if anew or self.weight is None else self.weight
        whole.copy_(weight)
        for scale, a, b in parts:
            whole.addmm_(b, a, alpha=scale)
        self.weight = whole

    def answer(self, x: Tensor, base: torch.nn.Linear, parts: list[Part]) -> Tensor:
        learning = [part for part in parts if part.learns]
        pairs = [value for part in learning for value in part[1:]]
        found: Tensor = _Folded.apply(  # type: ignore[no-untyped-call]
            x, self.weight, base.bias, [part.scale for part in learning], *pairs
        )
        return found


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
