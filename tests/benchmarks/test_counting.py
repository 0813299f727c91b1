from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.counting import counted
from forgetmenot.engine.learner import Learner
from forgetmenot.models.adapt import adapt
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import TokenSequence

VOCABULARY, WIDTH, INNER, LAYERS, HEADS, KEYS = 97, 32, 48, 2, 4, 2
LINEAR = 2 * LAYERS * WIDTH * (2 * WIDTH + 2 * WIDTH * KEYS // HEADS + 3 * INNER)
"""Operations of all linear layers at one position."""
HEAD = 2 * WIDTH * VOCABULARY


def attention(rows: int, length: int) -> int:
    """Operations of all attention layers: queries by keys, and weights by values."""
    return LAYERS * rows * 2 * 2 * length * length * WIDTH


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def test_padded_rows_are_counted_with_their_padding(model: Any) -> None:
    tokens, mask = torch.ones(3, 10, dtype=torch.long), torch.ones(3, 10)
    mask[1:, 4:] = 0
    with torch.no_grad(), counted(model) as work:
        model(input_ids=tokens, attention_mask=mask)
    assert (work.positions, work.head_rows) == (30, 30)
    assert work.flops == 30 * (LINEAR + HEAD) + attention(3, 10)


def test_a_trie_is_counted_by_its_nodes_and_scored_positions(model: Any) -> None:
    sequences = [TokenSequence((1, 2, 3, 4, 9), 3), TokenSequence((1, 2, 3, 5, 9), 3)]
    with counted(model) as work:
        Learner(model, tokenizer=None, budget=64).log_likelihoods(sequences)
    assert (work.positions, work.head_rows) == (5, 3), "1 2 3, then 4 or 5; the head after 3, 4 and 5"
    assert work.flops == 5 * LINEAR + 3 * HEAD + attention(1, 5)


def test_an_adapter_is_no_head_and_a_backward_pass_counts(model: Any) -> None:
    sequences = [TokenSequence((1, 2, 3, 4), 3)]
    adapted = adapt(model, AdapterSettings(rank=8), 1, 0)
    learner = Learner(adapted, tokenizer=None, budget=64)
    with counted(adapted) as forward, torch.no_grad():
        learner.forward(sequences)
    with counted(adapted) as both:
        learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
    assert forward.positions == both.positions == 3
    assert forward.head_rows == both.head_rows == 1
    assert forward.flops > 3 * LINEAR + HEAD + attention(1, 3)
    assert both.flops > 2 * forward.flops - 3 * LINEAR
    rounded = Learner(adapted, tokenizer=None, budget=64, precision="bf16")
    with counted(adapted) as added_in_place:
        rounded.log_likelihoods(sequences)
    assert added_in_place.flops == forward.flops


def test_trl_multiplies_the_head_at_every_position_and_again_in_the_backward_pass(model: Any) -> None:
    utils = pytest.importorskip("trl.trainer.utils", reason="trl is not installed: pip install '.[bench]'")
    utils.add_fused_lm_head(model)
    tokens = torch.ones(3, 10, dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    labels[:, -1] = 1
    with counted(model) as work:
        model(input_ids=tokens, labels=labels, fused_lm_head=True).loss.backward()
    assert work.positions == 30
    assert work.head_rows == 2 * 3 * 9
