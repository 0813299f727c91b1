"""Attention as plain products, for few keys in bf16: PyTorch's fused kernel for CPUs is made for many.

The heads that share keys are one product of many rows. Scores are in fp32, as in the fused kernel, and the
weights of the keys are computed again in the backward pass, not kept.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST = 4_000_000
"""Up to how many weights (queries × heads × keys) the products are the faster; `benchmarks/attention.py`."""


def is_faster(query: Tensor, mask: Tensor) -> bool:
    """Whether the products take less time than the fused kernel: in bf16, and with few keys.

    Args:
        query: [chunks, heads, queries, head size]
        mask: [chunks, 1, queries, keys]
    """
    return _dtype(query) == torch.bfloat16 and query.shape[1] * mask.numel() <= MOST


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """softmax(scale · Q Kᵀ + mask) V.

    Args:
        query: [chunks, heads, queries, head size]
        key: [chunks, groups, keys, head size], of which each serves heads / groups heads that follow one
            another, as in PyTorch's `enable_gqa`.
        value: Of the same heads and keys [chunks, groups, keys, value size].
        mask: [chunks, 1, queries, keys] in fp32; each query sees a key.
        scale: What products of queries and keys are multiplied by.

    Returns:
        [chunks, heads, queries, value size]
    """
    query, key, value = (one.to(_dtype(query)) for one in (query, key, value))
    found: Tensor = _Attention.apply(query, key, value, mask, scale)  # type: ignore[no-untyped-call]
    return found


def _dtype(query: Tensor) -> torch.dtype:
    """The dtype of what goes into products here."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.queries, ctx.keys, ctx.values = query.shape, key.shape, value.shape
        rows, keys, values = (_grouped(one, key.shape) for one in (query, key, value))
        ctx.save_for_backward(rows, keys, values, mask)
        ctx.scale = scale
        with torch.autocast(query.device.type, enabled=False):
            weights = _weights(rows, keys, mask, scale, query.shape)
            found = query.new_empty(*query.shape[:-1], value.shape[-1])  # no view
            torch.bmm(_grouped(weights.to(rows.dtype), key.shape), values, out=_grouped(found, key.shape))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, keys, values, mask = ctx.saved_tensors
        given = _grouped(gradient, ctx.keys)
        with torch.autocast(given.device.type, enabled=False):
            weights = _weights(rows, keys, mask, ctx.scale, ctx.queries)
            of_values = torch.bmm(_grouped(weights.to(rows.dtype), ctx.keys).mT, given)
            of_weights = torch.bmm(given, values.mT).float().view(weights.shape)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, torch.float32)
            scaled = _grouped(of_scores.mul_(ctx.scale).to(rows.dtype), ctx.keys)
            of_query, of_keys = torch.bmm(scaled, keys), torch.bmm(scaled.mT, rows)
        return of_query.view(ctx.queries), of_keys.view(ctx.keys), of_values.view(ctx.values), None, None


def _grouped(values: Tensor, keys: torch.Size) -> Tensor:
    """Rows of all heads that share keys: [chunks × groups, rows, size]."""
    chunks, groups = keys[:2]
    return values.reshape(chunks * groups, -1, values.shape[-1])


def _weights(rows: Tensor, keys: Tensor, mask: Tensor, scale: float, queries: torch.Size) -> Tensor:
    """How much each query takes of each key, in fp32 [chunks, heads, queries, keys]."""
    scores = torch.bmm(rows.float(), keys.float().mT)
    return scores.view(*queries[:-1], keys.shape[1]).mul_(scale).add_(mask).softmax(-1)
