"""Attention as plain products against PyTorch's fused kernel, in numbers, gradients and what is kept."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetmenot.engine import attended, chunked
from forgetmenot.engine.attended import attend
from forgetmenot.engine.attention import use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import Precision
from forgetmenot.prompting.encoded import TokenSequence

SCALE = 0.3
Inputs = list[Tensor]


def inputs(
    seed: int,
    chunks: int,
    heads: int,
    groups: int,
    queries: int,
    keys: int,
    size: int,
    values: int | None = None,
) -> Inputs:
    """Queries, keys, values, a mask that hides about half, and the gradient of what comes out.

    Args:
        values: The size of values, where it is another than that of keys.
    """
    draw = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    mask = torch.zeros(chunks, 1, queries, keys)
    mask = mask.masked_fill_(drawn(*mask.shape) < 0, float("-inf"))
    mask[..., 0] = 0
    # keys and values lie as `_taken` gives them: the heads within the positions
    sizes = (size, values or size)
    within = (drawn(chunks, keys, groups, one).transpose(1, 2) for one in sizes)
    return [2 * drawn(chunks, heads, queries, size), *within, mask, drawn(chunks, heads, queries, sizes[1])]


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask.to(query.dtype), scale=scale, enable_gqa=True
    )


def found(how: Any, given: Inputs, dtype: torch.dtype) -> list[Tensor]:
    """What comes out, and the gradients of queries, keys and values."""
    query, key, value, mask, gradient = given
    leaves = [one.to(dtype).requires_grad_() for one in (query, key, value)]
    out = how(*leaves, mask, SCALE)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(dtype))]


def apart(one: Tensor, truth: Tensor) -> float:
    return float((one.double() - truth).norm() / truth.norm().clamp(min=1e-12))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    chunks=st.integers(1, 4),
    groups=st.integers(1, 3),
    shared=st.integers(1, 4),
    queries=st.integers(1, 9),
    keys=st.integers(1, 12),
    size=st.sampled_from([1, 4, 8]),
    values=st.sampled_from([None, 3, 16]),
)
def test_it_is_the_attention_of_pytorch(seed: int, groups: int, shared: int, **shape: Any) -> None:
    given = inputs(seed, heads=groups * shared, groups=groups, **shape)
    truth = found(fused, given, torch.float64)
    for one, true in zip(found(attend, given, torch.float32), truth, strict=True):
        assert apart(one, true) < 1e-5 or (one.double() - true).abs().max() < 1e-6


@pytest.mark.parametrize("keys", [20, 130])
def test_in_bf16_it_is_as_exact_as_the_fused_kernel(keys: int) -> None:
    given = [one.bfloat16().float() for one in inputs(0, 6, 9, 3, 30, keys, 64)]
    truth = found(fused, given, torch.float64)
    theirs = found(fused, given, torch.bfloat16)
    ours = found(attend, given, torch.bfloat16)
    assert all(one.dtype == torch.bfloat16 for one in ours)
    for one, their, true in zip(ours, theirs, truth, strict=True):
        assert apart(one, true) < 1.5 * apart(their, true)


def test_under_autocast_it_computes_in_bf16_and_the_gradients_keep_their_dtype() -> None:
    query, key, value, mask, _ = inputs(0, 2, 4, 2, 5, 6, 8)
    leaves = [one.requires_grad_() for one in (query, key, value)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(query, key, value, mask, SCALE)
    rounded = found(attend, [*leaves, mask, torch.ones_like(query)], torch.bfloat16)
    assert torch.equal(out, rounded[0])
    for one, other in zip(torch.autograd.grad(out.sum(), leaves), rounded[1:], strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other.float())


def test_no_weights_are_kept_for_the_backward_pass() -> None:
    given = inputs(0, 4, 6, 2, 16, 64, 4)
    kept: list[int] = []

    def noted(one: Tensor) -> Tensor:
        kept.append(one.numel())
        return one

    query, key, value = (one.requires_grad_() for one in given[:3])
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda one: one):
        attend(query, key, value, given[3], SCALE)
    assert sorted(kept) == sorted(one.numel() for one in given[:4])


def test_a_gradient_of_the_gradient_is_refused() -> None:
    query, key, value, mask, _ = inputs(0, 1, 2, 1, 3, 3, 4)
    loss = attend(query.requires_grad_(), key, value, mask, SCALE).square().sum()
    first = torch.autograd.grad(loss, query, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()  # type: ignore[no-untyped-call]


def test_fp32_many_keys_and_dropout_go_to_the_fused_kernel(
    llama: Any, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_attention(llama, "chunked")
    calls: list[str] = []

    def noted(name: str, how: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            calls.append(name)
            return how(*given, **named)

        return call

    def asked(precision: Precision) -> Tensor:
        calls.clear()
        return Learner(llama, tokenizer=None, budget=512, precision=precision).log_likelihoods(sequences)

    monkeypatch.setattr(chunked, "attend", noted("products", attend))
    monkeypatch.setattr(F, "scaled_dot_product_attention", noted("fused", F.scaled_dot_product_attention))
    by_products = asked("bf16")
    assert set(calls) == {"products"}
    asked("fp32")
    assert set(calls) == {"fused"}
    with monkeypatch.context() as small:
        small.setattr(attended, "MOST", 0)
        by_the_kernel = asked("bf16")
        assert set(calls) == {"fused"}
    assert torch.allclose(by_products, by_the_kernel, rtol=0.02)
    for part in llama.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
    calls.clear()
    learner = Learner(llama.train(), tokenizer=None, budget=512, precision="bf16")
    learner.forward(sequences)
    assert set(calls) == {"fused"}
