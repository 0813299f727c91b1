"""Attention in chunks: its mask against the dense one, its numbers against one sequence at a time."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetmenot.engine import chunked as chunked_module
from forgetmenot.engine import mask as mask_module
from forgetmenot.engine.attention import attention_of, choose_attention, use_attention
from forgetmenot.engine.chunked import ChunkMask, chunk_mask
from forgetmenot.engine.guard import choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.mask import dense_mask
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.test_flex import forests
from tests.engine.test_forward import ON_THE_TRIE, Build, assert_equal, in_layout, one_by_one
from tests.engine.test_prefix import assert_exact, behind_a_head

CHUNKS_OF = 7
NOT_IN_CHUNKS = ("gptj", "gemma2", "falcon")  # eager attention, or SDPA that cannot be replaced


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So few queries at a time that tries of a test have many chunks; how many each had is appended."""
    made = []

    def noted(*given: Any) -> ChunkMask:
        mask = chunk_mask(*given)
        made.append(len(mask.keys))
        return mask

    for module in (chunked_module, mask_module):
        monkeypatch.setattr(module, "CHUNK", CHUNKS_OF)
    monkeypatch.setattr(mask_module, "chunk_mask", noted)
    return made


@pytest.mark.parametrize("name", [name for name in ON_THE_TRIE if name not in NOT_IN_CHUNKS])
def test_likelihoods_and_gradients_equal_one_sequence_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence], small_chunks: list[int]
) -> None:
    model = build(ON_THE_TRIE[name]())
    truth = one_by_one(model, sequences)
    own = model.config._attn_implementation
    assert choose_attention("auto", torch.device("cpu"), model) == "chunked"
    use_attention(model, "chunked")
    verdict = choose_layout(Learner(model, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.attention, verdict.reasons) == ("trie", "chunked", {})
    small_chunks.clear()
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert min(small_chunks) > 3
    small_chunks.clear()
    for layout in ("padded", "single"):
        use_attention(model, "chunked")
        assert_equal(in_layout(model, sequences, layout), truth)
    use_attention(model, "dense")
    assert (attention_of(model), model.config._attn_implementation) == ("dense", own)


@pytest.mark.parametrize("name", NOT_IN_CHUNKS)
def test_other_kernels_keep_the_dense_mask(name: str, build: Build) -> None:
    model = build(ON_THE_TRIE[name]())
    assert choose_attention("auto", torch.device("cpu"), model) == "dense"


def test_activation_checkpointing_changes_nothing(
    build: Build, sequences: list[TokenSequence], small_chunks: list[int]
) -> None:
    model = build(ON_THE_TRIE["gemma3"]())
    truth = in_layout(model, sequences, "trie")
    use_attention(model, "chunked")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert small_chunks


def test_mixed_precision_gives_what_the_dense_mask_gives(
    llama: Any, sequences: list[TokenSequence], small_chunks: list[int]
) -> None:
    learner = Learner(llama, tokenizer=None, budget=512, precision="bf16")
    dense = learner.log_likelihoods(sequences)
    use_attention(llama, "chunked")
    assert torch.allclose(learner.log_likelihoods(sequences), dense, rtol=2e-2)
    assert small_chunks


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma3"])
def test_behind_a_prefix(name: str, build: Build, small_chunks: list[int]) -> None:
    model = build(ON_THE_TRIE[name]())
    use_attention(model, "chunked")
    learner = Learner(model, tokenizer=None, budget=24)
    assert learner.arrange(behind_a_head(12)).prefix
    assert_exact(learner, behind_a_head(12))
    assert max(small_chunks) > 1


def test_generation_stays_with_the_own_kernel(llama: Any, small_chunks: list[int]) -> None:
    prompt = torch.tensor([list(range(5, 25))])
    plain = llama.generate(input_ids=prompt, do_sample=False, max_new_tokens=6)
    use_attention(llama, "chunked")
    assert llama.generate(input_ids=prompt, do_sample=False, max_new_tokens=6).tolist() == plain.tolist()
    assert not small_chunks


def test_where_it_fails_the_guard_takes_the_dense_mask(
    llama: Any, sequences: list[TokenSequence], small_chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no kernel for this head size")

    monkeypatch.setattr(chunked_module, "_taken", broken)
    use_attention(llama, "chunked")
    verdict = choose_layout(Learner(llama, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.attention) == ("trie", "dense")
    assert verdict.reasons == {"chunked": "RuntimeError: no kernel for this head size"}


@settings(max_examples=60, deadline=None)
@given(forests(), st.one_of(st.none(), st.integers(1, 300)), st.integers(0, 9))
def test_chunks_hide_what_the_dense_mask_hides(
    forest: tuple[Tensor, Tensor], window: int | None, prefix: int
) -> None:
    end, depth = forest
    depth = depth + prefix
    n = len(end)
    dense = dense_mask(end, depth, window, prefix)
    mask = chunk_mask(end, depth, window, prefix)
    chunks, _, size, _ = mask.shape
    spread = torch.zeros(chunks, size, prefix + n, dtype=torch.int)
    shown = (mask.as_subclass(Tensor)[:, 0] == 0).int()
    spread.scatter_add_(2, mask.keys[:, None].expand(-1, size, -1), shown)
    assert torch.equal(spread.flatten(0, 1)[:n], dense.int()), "each key once, and no other"
    assert spread.any(2).all(), "a query that sees nothing has no softmax"
