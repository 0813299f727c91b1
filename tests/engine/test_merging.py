"""A merged model is held against the adapter that it was made of."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.merging import last_tokens, merge
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.quantize import merged
from forgetmenot.models.settings import AdapterSettings

PROMPTS = [(5, 9, 2, 7, 11), (5, 9, 3, 1), (8, 4, 4, 6, 20, 33)]


def _adapted(targets: Any, *, tied: bool) -> Learner:
    """A model with an adapter that has learned something, however it came to be there."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        tie_word_embeddings=tied,
    )
    model = adapt(AutoModelForCausalLM.from_config(config), AdapterSettings(targets=targets), 1, 0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora" in name:
                value.normal_(std=0.3)
    return Learner(model.eval(), None, budget=512)


@pytest.mark.parametrize("targets", ["all-linear", ["lm_head"], ["embed_tokens"]])
def test_a_merge_says_what_the_adapter_said(targets: Any) -> None:
    learner = _adapted(targets, tied=False)
    assert merge(learner, merged, last_tokens(PROMPTS)) < 1e-4
    assert not [name for name, _ in learner.model.named_parameters() if "lora" in name]


def test_a_merge_into_another_model_is_refused() -> None:
    learner = _adapted("all-linear", tied=False)

    def wrong(model: Any) -> Any:
        return model.unload()  # the adapter is lost

    with pytest.raises(UserError, match=r"another one than was trained: its log-likelihoods differ by up to"):
        merge(learner, wrong, last_tokens(PROMPTS))


def test_numbers_that_are_none_are_refused() -> None:
    learner = _adapted("all-linear", tied=False)

    def broken(model: Any) -> Any:
        plain = merged(model)
        plain.lm_head.weight.data[:] = float("nan")
        return plain

    with pytest.raises(UserError, match="differ by up to nan nats"):
        merge(learner, broken, last_tokens(PROMPTS))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_tied_weights_is_refused_before_training(target: str) -> None:
    with pytest.raises(UserError, match=rf"adapter.targets: '{target}' shares its weights with '.*'.*tied"):
        _adapted([target], tied=True)
