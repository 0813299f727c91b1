"""FlexAttention over tries: its blocks against PyTorch's own, its numbers against one sequence at a time.

On a CPU FlexAttention has no compiled backward, so these run PyTorch's unfused reference of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import create_block_mask
from transformers.integrations import flex_attention as transformers_flex

from forgetmenot.engine import forward as forward_module
from forgetmenot.engine.attention import attention_of, choose_attention, use_attention
from forgetmenot.engine.flex import block_mask
from forgetmenot.engine.guard import choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.mask import attention_mask
from forgetmenot.engine.trie import build_trie
from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.test_forward import ON_THE_TRIE, Build, assert_equal, in_layout, one_by_one

WITH_FLEX = [name for name in ON_THE_TRIE if name not in ("gpt2", "gptj", "falcon")]


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """PyTorch's own reference in place of the compiled kernel; the length of each call is appended."""
    calls = []

    def reference(query: Tensor, key: Tensor, value: Tensor, training: bool = False, **options: Any) -> Any:
        calls.append(query.shape[-2])
        return torch_flex.flex_attention(query, key, value, **options)

    monkeypatch.setattr(transformers_flex, "compile_friendly_flex_attention", reference)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    return calls


@pytest.mark.parametrize("name", WITH_FLEX)
def test_likelihoods_and_gradients_equal_one_sequence_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence], unfused: list[int]
) -> None:
    model = build(ON_THE_TRIE[name]())
    truth = one_by_one(model, sequences)
    own = model.config._attn_implementation
    use_attention(model, "flex")
    assert attention_of(model) == "flex"
    verdict = choose_layout(Learner(model, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.attention, verdict.reasons) == ("trie", "flex", {})
    unfused.clear()
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert unfused, "FlexAttention was at work"
    unfused.clear()
    assert_equal(in_layout(model, sequences, "padded"), truth)
    assert_equal(in_layout(model, sequences, "single"), truth)
    assert not unfused, "what is no trie stays with the model's own kernel"
    use_attention(model, "dense")
    assert (attention_of(model), model.config._attn_implementation) == ("dense", own)


def test_activation_checkpointing_changes_nothing(
    build: Build, sequences: list[TokenSequence], unfused: list[int]
) -> None:
    model = build(ON_THE_TRIE["gemma3"]())
    truth = in_layout(model, sequences, "trie")
    use_attention(model, "flex")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert unfused


def test_mixed_precision_reaches_the_kernel_in_one_dtype(
    llama: Any, sequences: list[TokenSequence], unfused: list[int]
) -> None:
    """Rotary embeddings leave query and key in fp32 beside a bf16 value, which FlexAttention refuses."""
    learner = Learner(llama, tokenizer=None, budget=512, precision="bf16")
    dense = learner.log_likelihoods(sequences)
    use_attention(llama, "flex")
    assert torch.allclose(learner.log_likelihoods(sequences), dense, rtol=2e-2)
    assert unfused


def test_generation_stays_with_the_own_kernel(llama: Any, unfused: list[int]) -> None:
    prompt = torch.tensor([[5, 6, 7, 8]])
    plain = llama.generate(input_ids=prompt, do_sample=False, max_new_tokens=6)
    use_attention(llama, "flex")
    assert llama.generate(input_ids=prompt, do_sample=False, max_new_tokens=6).tolist() == plain.tolist()
    assert not unfused


def test_where_it_fails_the_guard_takes_the_dense_mask(
    llama: Any, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel for this head size")

    monkeypatch.setattr(transformers_flex, "compile_friendly_flex_attention", broken)
    use_attention(llama, "flex")
    verdict = choose_layout(Learner(llama, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.attention) == ("trie", "dense")
    assert verdict.reasons == {"flex": "RuntimeError: no kernel for this head size"}
    assert attention_of(llama) == "flex", "the guard leaves the model as it was"


def test_the_guard_sees_a_wrong_block_mask(
    llama: Any, sequences: list[TokenSequence], unfused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def causal(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int) -> Any:
        end = end if attention_of(llama) == "dense" else torch.full_like(end, len(end))
        return attention_mask(config, end, depth, dtype, prefix)

    use_attention(llama, "flex")
    monkeypatch.setattr(forward_module, "attention_mask", causal)
    verdict = choose_layout(Learner(llama, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.attention) == ("trie", "dense")
    assert verdict.reasons["flex"].startswith("log-likelihoods differ by ")


def test_it_is_chosen_on_cuda_for_models_that_take_it(build: Build) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    llama, gpt2 = build(ON_THE_TRIE["llama"]()), build(ON_THE_TRIE["gpt2"]())
    assert choose_attention("auto", cuda, llama) == "flex"
    assert choose_attention("flex", cuda, llama) == "flex"
    assert choose_attention("dense", cuda, llama) == "dense"
    assert choose_attention("dense", cpu, llama) == "dense"
    assert choose_attention("auto", cuda, gpt2) == "dense"
    with pytest.raises(UserError, match="needs a CUDA device"):
        choose_attention("flex", cpu, llama)
    with pytest.raises(UserError, match="no FlexAttention for a gpt2"):
        choose_attention("flex", cuda, gpt2)


@st.composite
def forests(draw: Callable[..., Any]) -> tuple[Tensor, Tensor]:
    """The ends and depths of a trie of up to some hundred nodes, with long and short branches."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, letters = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    head = rng.integers(0, letters, draw(st.integers(1, 200))).tolist()
    longest = draw(st.integers(1, 150))
    rows = [
        (*head[: rng.integers(0, len(head) + 1)], *rng.integers(0, letters, rng.integers(1, longest + 1)))
        for _ in range(count)
    ]
    trie = build_trie([tuple(int(token) for token in row) for row in rows])
    return torch.from_numpy(trie.end), torch.from_numpy(trie.depth)


@settings(max_examples=60, deadline=None)
@given(forests(), st.one_of(st.none(), st.integers(1, 300)))
def test_blocks_are_those_that_the_nodes_say(forest: tuple[Tensor, Tensor], window: int | None) -> None:
    end, depth = forest
    n = len(end)
    built = block_mask(end, depth, window)

    def rule(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        near = depth[i] - depth[j] < (n if window is None else window)
        return (j <= i) & (i < end[j]) & near

    truth = create_block_mask(rule, None, None, n, n, device="cpu")
    assert built.shape == truth.shape == (1, 1, n, n)
    full, true_full = as_dense(built, full=True), as_dense(truth, full=True)
    partial, true_partial = as_dense(built, full=False), as_dense(truth, full=False)
    assert torch.equal(full, true_full)
    if window is None:
        assert torch.equal(partial, true_partial)
    assert (partial >= true_partial).all(), "a block too many is tested node by node; one too few is wrong"
    assert not (partial & full).any()
    # The keys' side, which the backward pass reads, says the same.
    for name in ("kv_num_blocks", "full_kv_num_blocks"):
        queries = getattr(built, name.replace("kv", "q"))
        assert queries.sum() == getattr(built, name).sum()


def as_dense(mask: Any, *, full: bool) -> Tensor:
    """The blocks that a block mask lists as full, or as to be tested [rows, columns]."""
    counts, columns = (
        (mask.full_kv_num_blocks, mask.full_kv_indices) if full else (mask.kv_num_blocks, mask.kv_indices)
    )
    dense = torch.zeros(columns.shape[-2:], dtype=torch.bool)
    for row, count in enumerate(counts[0, 0].tolist()):
        dense[row, columns[0, 0, row, :count].long()] = True
    return dense


@pytest.mark.slow
def test_the_compiled_kernel_agrees(llama: Any) -> None:
    """Several blocks, empty, full and partial, through the kernel that is compiled for this processor."""
    rng = np.random.default_rng(2)
    head = tuple(rng.integers(3, 97, 40).tolist())
    drawn = [
        TokenSequence((*head, *rng.integers(3, 97, rng.integers(20, 80)).tolist()), 30) for _ in range(8)
    ]
    learner = Learner(llama, tokenizer=None, budget=512)
    dense = learner.log_likelihoods(drawn)
    use_attention(llama, "flex")
    assert torch.allclose(learner.log_likelihoods(drawn), dense, rtol=1e-5)
