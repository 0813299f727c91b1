"""LoRA beside weights in bf16: two small products that are added in place, without casts and sums.

PEFT casts a layer's input to the dtype of the adapters, fp32, autocast casts it back, and what the adapters
give is scaled and added in passes of its own over the layer's output. Here all adapters of a layer are one:
their A's lie below one another and their B's, scaled and rounded once, side by side.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from forgetmenot.models.lora_forward import LoraForward, Part, answering_by, plain_lora


def rounded_lora(model: Any) -> AbstractContextManager[Callable[[], None]]:
    """Let the LoRA layers of a model answer and learn so wherever autocast computes in bf16.

    A layer's output then has one rounding less than PEFT's. Left to PEFT: weights that are not in bf16 (the
    LM head), layers that hold their weights transposed, and dropout on what adapters get, while it drops.

    Yields:
        What is to be called after each step of an optimizer, which PyTorch does not count as a change.
    """
    return answering_by(_RoundedForward, (one for one in plain_lora(model) if not one.fan_in_fan_out))


class _RoundedForward(LoraForward):
    """x Wᵀ + (x Aᵀ) Bᵀ in bf16, with the A and B of all adapters together."""

    a: Tensor
    b: Tensor

    def takes(self, x: Tensor, weight: Tensor) -> bool:
        return (
            torch.is_autocast_enabled(x.device.type)
            and weight.dtype == torch.get_autocast_dtype(x.device.type) == torch.bfloat16
            and not any(
                isinstance(d, torch.nn.Dropout) and d.training for d in self.layer.lora_dropout.values()
            )
        )

    def form(self, weight: Tensor, parts: list[Part], *, anew: bool) -> None:
        self.a = torch.cat([weight[:0], *(part.a.bfloat16() for part in parts)])
        self.b = torch.cat([weight[:, :0], *((part.scale * part.b).bfloat16() for part in parts)], dim=1)

    def answer(self, x: Tensor, base: torch.nn.Linear, parts: list[Part]) -> Tensor:
        pairs = [value for part in parts for value in part[1:]]
        scales = [part.scale for part in parts]
        found: Tensor = _Beside.apply(x, base.weight, base.bias, self.a, self.b, scales, *pairs)  # type: ignore[no-untyped-call]
        return found


class _Beside(torch.autograd.Function):
    """x Wᵀ + (x Aᵀ) Bᵀ + bias; its gradients are those of x, and of each adapter's A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scales: list[float],
        *pairs: Tensor,
    ) -> Tensor:
        x16 = x.to(weight.dtype)
        rows = x16.flatten(0, -2)
        inner = rows @ a.T
        found = F.linear(x16, weight, bias)  # no view, which a model may not change in its place
        found.view(-1, len(weight)).addmm_(inner, b.T)
        of_a, of_b = any(ctx.needs_input_grad[6::2]), any(ctx.needs_input_grad[7::2])
        ctx.save_for_backward(rows if of_a else None, inner if of_b else None, weight, a, b)
        ctx.scales, ctx.ranks = scales, [len(one) for one in pairs[::2]]
        ctx.dtype, ctx.shape = x.dtype, x.shape
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, inner, weight, a, b = ctx.saved_tensors
        given = gradient.flatten(0, -2)
        within = given @ b
        needs_pairs = ctx.needs_input_grad[6:]
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (given @ weight).addmm_(within, a).to(ctx.dtype).view(ctx.shape)
        of_pairs: list[Tensor | None] = []
        begin = 0
        for k, (scale, rank) in enumerate(zip(ctx.scales, ctx.ranks, strict=True)):
            own = slice(begin, begin := begin + rank)
            needs_a, needs_b = needs_pairs[2 * k : 2 * k + 2]
            of_pairs.append((within[:, own].T @ rows).float() if needs_a else None)
            of_pairs.append(scale * (given.T @ inner[:, own]).float() if needs_b else None)
        return (of_x, None, None, None, None, None, *of_pairs)
