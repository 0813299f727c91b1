"""Tiny random models whose weights are large enough that an error shows, and sequences that overlap."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils import logging

from forgetmenot.engine.learner import Learner
from forgetmenot.prompting.encoded import Encoded, TokenSequence

VOCABULARY = 97
Build = Callable[[Any], Any]


@pytest.fixture(scope="session", autouse=True)
def _quiet_and_single_threaded() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.set_verbosity_error()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build() -> Build:
    """From a configuration to a model with weights of normal(0, 0.15), biases and norms included."""

    def build(config: Any) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                noise = torch.randn_like(p) * 0.15
                p.copy_(noise if p.dim() > 1 else p + noise)
        return model.eval()

    return build


@pytest.fixture
def llama(build: Build) -> Any:
    return build(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


@pytest.fixture
def learner(llama: Any) -> Learner:
    return Learner(llama, tokenizer=None, budget=512)


@pytest.fixture(scope="session")
def sequences() -> list[TokenSequence]:
    """Common heads cut at many places, a duplicate, a prefix of the others, a stranger of two tokens."""
    rng = np.random.default_rng(0)
    head = tuple(rng.integers(3, VOCABULARY, 10).tolist())
    drawn = []
    for _ in range(12):
        tail = rng.integers(3, VOCABULARY, rng.integers(2, 14)).tolist()
        tokens = head[: rng.integers(4, 10)] + tuple(tail)
        drawn.append(TokenSequence(tokens, int(rng.integers(1, len(tokens)))))
    return [*drawn, TokenSequence(head, 1), drawn[3], TokenSequence((5, 6), 1)]


@pytest.fixture(scope="session")
def examples() -> list[Encoded]:
    """Choices with a common instruction: what a stage trains on."""
    rng = np.random.default_rng(1)
    instruction = tuple(rng.integers(3, VOCABULARY, 6).tolist())
    answers = ((11, 12), (13,), (14, 15, 16))
    made = []
    for k in range(23):
        prompt = instruction + tuple(rng.integers(3, VOCABULARY, rng.integers(2, 12)).tolist())
        gold = k % len(answers)
        made.append(
            Encoded(
                id=f"train-{k}",
                candidates=tuple(TokenSequence(prompt + answer, len(prompt)) for answer in answers),
                answer=TokenSequence((*prompt, *answers[gold], 1), len(prompt)),
                prompt=prompt,
                gold=gold,
                cut=0,
            )
        )
    return made
