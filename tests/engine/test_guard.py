"""The guard sees wrong masks; here are some, each wrong in one way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from forgetmenot.engine import forward as forward_module
from forgetmenot.engine.guard import TOLERANCE, choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.mask import attention_mask
from forgetmenot.prompting.encoded import TokenSequence

Mask = Callable[[Any, Tensor, Tensor, torch.dtype, int], Any]


def causal(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int) -> Any:
    """Whoever stands before is attended to, ancestor or not."""
    return attention_mask(config, torch.full_like(end, len(end)), torch.zeros_like(depth), dtype)


def windowless(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int) -> Any:
    """Ancestors at any distance."""
    return attention_mask(config, end, torch.zeros_like(depth), dtype)


def window_over_nodes(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int) -> Any:
    """The window counts nodes between, those of other branches too."""
    return attention_mask(config, end, torch.arange(len(end)), dtype)


@pytest.mark.parametrize(
    ("mask", "window"), [(causal, None), (causal, 5), (windowless, 5), (window_over_nodes, 5)]
)
def test_a_wrong_mask_is_seen_and_refused(
    mask: Mask,
    window: int | None,
    build: Callable[[Any], Any],
    sequences: list[TokenSequence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = transformers.MistralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=window,
    )
    learner = Learner(build(config), tokenizer=None, budget=512)
    assert choose_layout(learner, sequences).layout == "trie"
    monkeypatch.setattr(forward_module, "attention_mask", mask)
    verdict = choose_layout(learner, sequences)
    assert verdict.layout == "padded"
    assert verdict.reasons["trie"].startswith("log-likelihoods differ by ")
    differing = float(verdict.reasons["trie"].split()[3])
    assert differing > 100 * TOLERANCE["fp32"], "far from rounding"


def test_a_model_that_reads_its_padding_goes_one_at_a_time(
    learner: Learner, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a model whose answer depends on the other rows: their number shifts its logits."""
    original = learner.model.forward

    def forward(**inputs: Any) -> Any:
        if inputs["attention_mask"].dim() == 4:
            raise TypeError("no such mask here")
        output = original(**inputs)
        output.logits[..., 7] = output.logits[..., 7] + len(inputs["input_ids"]) - 1
        return output

    monkeypatch.setattr(learner.model, "forward", forward)
    verdict = choose_layout(learner, sequences)
    assert (verdict.layout, verdict.difference) == ("single", 0.0)
    assert verdict.reasons["trie"] == "TypeError: no such mask here"
    assert verdict.reasons["padded"].startswith("log-likelihoods differ by ")


def test_out_of_memory_is_no_verdict(
    learner: Learner, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = learner.model.forward

    def forward(**inputs: Any) -> Any:
        if inputs["attention_mask"].dim() == 4:
            raise torch.OutOfMemoryError("full")
        return original(**inputs)

    monkeypatch.setattr(learner.model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        choose_layout(learner, sequences)


def test_the_guard_leaves_the_learner_as_it_was(learner: Learner, sequences: list[TokenSequence]) -> None:
    learner.model.train()
    learner.layout = "blocks"
    learner.counts = {"computed": 3, "without_sharing": 4}
    choose_layout(learner, sequences)
    assert learner.model.training
    assert learner.layout == "blocks"
    assert learner.counts == {"computed": 3, "without_sharing": 4}
    assert all(p.grad is None for p in learner.model.parameters())


def test_the_rounding_of_bf16_is_no_error(
    learner: Learner, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exact in fp32 is not refused, however coarse bf16 is in a deep model."""
    monkeypatch.setitem(TOLERANCE, "bf16", 1e-4)
    exact = learner.log_likelihoods(sequences)
    learner.precision = "bf16"
    apart = (learner.log_likelihoods(sequences) - exact).abs() / exact.abs().clamp(min=1)
    assert apart.max() > TOLERANCE["bf16"], "the rounding is large"
    verdict = choose_layout(learner, sequences)
    assert (verdict.layout, verdict.reasons, learner.precision) == ("trie", {}, "bf16")
    assert verdict.difference < TOLERANCE["fp32"]


def test_a_kernel_that_refuses_the_runs_own_precision_is_not_taken(
    learner: Learner, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int = 0) -> Any:
        if dtype == torch.bfloat16:
            raise RuntimeError("no kernel for bf16")
        return attention_mask(config, end, depth, dtype, prefix)

    monkeypatch.setattr(forward_module, "attention_mask", refusing)
    assert choose_layout(learner, sequences).layout == "trie"
    learner.precision = "bf16"
    verdict = choose_layout(learner, sequences)
    assert verdict.layout == "padded"
    assert verdict.reasons["trie"] == "RuntimeError: no kernel for bf16"
