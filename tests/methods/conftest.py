"""What the tests of methods learn with: the tiny Llama or weights alone, and examples as tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.methods import Stage
from forgetmenot.models.adapt import adapt
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.prompting import Encoded, TokenSequence, choose_prompt
from forgetmenot.prompting.wording import Wording
from forgetmenot.tasks import load_tasks

Adapted = Callable[..., Learner]


@dataclass
class Weights:
    """As much of a learner as a penalty needs: one vector that learns."""

    w: Tensor

    @property
    def device(self) -> torch.device:
        return self.w.device

    def trainable(self) -> dict[str, Tensor]:
        return {"w": self.w}

    def snapshot(self) -> dict[str, Tensor]:
        return {"w": self.w.detach().clone()}


@pytest.fixture
def weights() -> Callable[..., Any]:
    """From numbers to a learner of one vector, in fp64."""
    return lambda values: Weights(torch.tensor(values, dtype=torch.float64, requires_grad=True))


@pytest.fixture
def learner(tiny_llama: Path) -> Learner:
    """The tiny Llama, of which everything learns."""
    torch.set_num_threads(1)
    loaded = load_model(ModelSettings(name=str(tiny_llama)), trainable=True, device=torch.device("cpu"))
    return Learner(loaded.model.requires_grad_(True), loaded.tokenizer, budget=256)


@pytest.fixture
def stage(learner: Learner, tiny_tasks: Mapping[str, Path]) -> Stage:
    """The first stage, on twelve examples of the task `size`."""
    (task,) = load_tasks([str(tiny_tasks["size"])], None)
    wording = Wording(task, choose_prompt(task, "default"), task.train[:12], learner.tokenizer, 128)
    encoded = wording.encode(wording.examples)
    return Stage(1, ("size",), data={"size": encoded}, wordings={"size": wording})


@pytest.fixture
def examples(stage: Stage) -> list[Encoded]:
    return list(stage.data["size"])


@pytest.fixture
def shaken(learner: Learner) -> Callable[..., None]:
    """Move the learner's weights at random: shaken(how far)."""

    def shake(far: float = 0.05) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in learner.trainable().values():
                p.add_(far * torch.randn(p.shape, generator=generator))

    return shake


@pytest.fixture
def plain(learner: Learner) -> Callable[..., Any]:
    """Logits that predict a sequence's counted tokens, by the model alone: fp64 [predicted, vocabulary]."""

    def plain(sequence: Any) -> Any:
        with torch.no_grad():
            logits = learner.model(input_ids=torch.tensor([sequence.tokens])).logits[0]
        return logits[sequence.start - 1 : -1].double().numpy()

    return plain


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
