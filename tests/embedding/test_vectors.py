"""Vectors on the trie against one sequence at a time."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from forgetmenot.embedding import vectors
from forgetmenot.embedding.prompt import EmbeddingSettings, asked
from forgetmenot.embedding.vectors import embed, prompts_of
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import autocast
from forgetmenot.errors import UserError

SENTENCES = ["A cat", "A cat sat.", "Is it red?", "A cat", "hound of the sea", "A cat sat down"]
DEMONSTRATION = ("A man is smoking.", "Smoking")


def alone(learner: Learner, text: str, pooling: str) -> Tensor:
    tokens = torch.tensor([learner.tokenizer(text)["input_ids"]])
    with torch.no_grad(), autocast(torch.device("cpu"), learner.precision):
        states = learner.model(input_ids=tokens, output_hidden_states=True).hidden_states[-1][0].float()
    found: Tensor = states.mean(0) if pooling == "mean" else states[-1]
    return found


@pytest.mark.parametrize(
    ("pooling", "demonstration"),
    [("prompt", None), ("prompt", DEMONSTRATION), ("mean", None), ("last", None)],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_is_that_of_the_sentence_alone(
    learner: Learner, pooling: Any, demonstration: Any, precision: Literal["fp32", "bf16"]
) -> None:
    learner = replace(learner, precision=precision)
    settings = EmbeddingSettings(pooling=pooling, demonstration=demonstration)
    found = embed(learner, SENTENCES, settings)
    wanted = torch.stack([alone(learner, asked(text, settings), pooling) for text in SENTENCES])
    assert found.dtype == torch.float32
    if precision == "fp32":
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    else:
        assert torch.cosine_similarity(found, wanted).min() > 0.999
    assert torch.equal(found[0], found[3])


def test_a_demonstration_stays_in_front_and_moves_no_vector_to_another_token(learner: Learner) -> None:
    plain, shown = EmbeddingSettings(), EmbeddingSettings(demonstration=DEMONSTRATION)
    for without, with_one in zip(
        prompts_of(learner, SENTENCES, plain), prompts_of(learner, SENTENCES, shown), strict=True
    ):
        assert with_one[-3:] == without[-3:]
        assert len(with_one) > len(without)
    assert not torch.allclose(embed(learner, SENTENCES, plain), embed(learner, SENTENCES, shown), atol=1e-2)


@pytest.mark.parametrize("pooling", ["prompt", "mean"])
def test_chunks_give_the_same_and_all_sentences_are_told(
    learner: Learner, pooling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EmbeddingSettings(pooling=pooling)
    whole = embed(learner, SENTENCES, settings)
    monkeypatch.setattr(vectors, "AT_ONCE", 2)
    told: list[int] = []
    torch.testing.assert_close(embed(learner, SENTENCES, settings, told.append), whole, atol=1e-5, rtol=1e-5)
    assert len(told) == 3
    assert sum(told) == len(SENTENCES)


def test_what_cannot_be_embedded_is_refused(learner: Learner) -> None:
    with pytest.raises(UserError, match="A sentence is empty"):
        embed(learner, ["A cat", "  "], EmbeddingSettings(pooling="last"))
    with pytest.raises(UserError, match=r"has \d+ tokens with its prompt.*positions for 128"):
        embed(learner, ["word " * 200], EmbeddingSettings())
    assert embed(learner, [], EmbeddingSettings()).shape == (0, 32)


@pytest.mark.parametrize("pooling", ["prompt", "mean"])
def test_a_model_whose_last_states_are_narrower_than_its_layers_is_embedded(
    learner: Learner, pooling: Any
) -> None:
    """As OPT-350M's, which are projected to half their width."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(learner.tokenizer),
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        do_layer_norm_before=False,
        init_std=0.1,
    )
    opt = replace(learner, model=OPTForCausalLM(config).eval())
    settings = EmbeddingSettings(pooling=pooling)
    found = embed(opt, SENTENCES, settings)
    wanted = torch.stack([alone(opt, asked(text, settings), pooling) for text in SENTENCES])
    assert found.shape == (len(SENTENCES), 16)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
