"""What the tests of methods learn with: the tiny Llama, and examples of two tasks as tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forgetmenot.engine import Learner
from forgetmenot.models import AdapterSettings, ModelSettings, adapt, load_model
from forgetmenot.prompting import Encoded, TokenSequence

Adapted = Callable[..., Learner]


@pytest.fixture
def adapted(tiny_llama: Path) -> Adapted:
    """A learner with what a config's `adapter` asks for: adapted(per_stage="new"), adapted(kind="full")."""

    def make(stage: int = 1, **settings: Any) -> Learner:
        chosen = AdapterSettings(**settings)
        loaded = load_model(
            ModelSettings(name=str(tiny_llama)), trainable=chosen.kind == "full", device=torch.device("cpu")
        )
        return Learner(adapt(loaded.model, chosen, stage, seed=0), loaded.tokenizer, budget=512)

    return make


@pytest.fixture(scope="session")
def few_examples() -> dict[str, list[Encoded]]:
    """Twelve choices each of `near` and `far`, whose prompts begin differently."""
    rng = np.random.default_rng(0)

    def make(head: tuple[int, ...], k: int) -> Encoded:
        prompt = (*head, *rng.integers(3, 290, rng.integers(2, 8)).tolist())
        candidates = tuple(TokenSequence((*prompt, *word), len(prompt)) for word in ((11, 12), (13,)))
        answer = TokenSequence((*candidates[k % 2].tokens, 294), len(prompt))
        return Encoded(f"{head[0]}-{k}", candidates, answer, prompt, k % 2, 0)

    heads = {"near": (5, 6, 7), "far": (80, 90, 100, 110)}
    return {name: [make(head, k) for k in range(12)] for name, head in heads.items()}
