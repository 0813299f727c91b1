"""In bf16 every method learns what it learns in fp32, also where its loss passes other weights through."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import Precision, autocast, rounded_once
from forgetmenot.methods import METHODS, Method, Stage, make_method
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded, TokenSequence
from forgetmenot.runs.api import Run
from tests.written import FEW_WORDS, ROOMY

OWN: list[tuple[str, dict[str, Any]]] = [
    ("kl", {"strength": 5.0}),
    ("asft", {"strength": 5.0}),
    ("dft", {}),
    ("eaft", {}),
    ("flow", {}),
    ("stm", {"threshold": 300.0}),
    ("lwf", {"strength": 5.0, "over": "vocabulary"}),
    ("lwf", {"strength": 5.0, "over": "labels"}),
    ("ema", {"strength": 5.0}),
    ("self-distillation", {"teacher": "ema", "rate": 0.5, **FEW_WORDS}),
    ("self-distillation", {"divergence": "reverse", "top_k": 0, **FEW_WORDS}),
    ("der++", {"alpha": 1.0}),
]


def loss_and_gradient(
    learner: Learner, method: Method, batch: Sequence[Encoded], precision: Precision, *, first: bool
) -> tuple[float, Tensor]:
    """Of one pack, the step's first or a later one, in the context that `fit` gives a step."""
    learner.precision = precision
    learner.model.zero_grad()
    with rounded_once(learner.model, precision), autocast(learner.device, precision):
        if not first:
            learner.forward([example.answer for example in batch])
        loss = method.loss(learner, batch)
        with torch.autocast("cpu", enabled=False):
            torch.autograd.backward(loss)
    learner.precision = "fp32"
    return loss.item(), torch.cat([gradient.flatten() for gradient in learner.gathered().values()])


def check(
    learner: Learner, method: Method, batch: Sequence[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[TokenSequence]] = []
    sample = learner.sample

    def draw(*asked: Any) -> list[TokenSequence]:
        """What rounding makes of a draw is another question: both learn from the first one."""
        drawn.append(sample(*asked))
        return drawn[0]

    monkeypatch.setattr(learner, "sample", draw)
    for first in (True, False):
        exact, gradient = loss_and_gradient(learner, method, batch, "fp32", first=first)
        rounded, other = loss_and_gradient(learner, method, batch, "bf16", first=first)
        assert gradient.norm() > 0
        assert rounded == pytest.approx(exact, rel=0.02)
        assert torch.cosine_similarity(gradient, other, dim=0) > 0.99


@pytest.mark.parametrize(("name", "options"), OWN)
def test_a_loss_of_its_own_is_that_of_fp32(
    name: str,
    options: dict[str, Any],
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = make_method(name, options, seed=0)
    if name == "der++":
        method.end(learner, stage)  # past examples are what it passes otherwise
    method.begin(learner, stage)
    if name == "ema":
        method.stepped(learner)
    if name == "der++":
        examples = list(method.memory["size"])  # type: ignore[attr-defined]
    shaken(0.1)
    check(learner, method, examples, monkeypatch)


@pytest.mark.parametrize("name", ["kl", "lwf"])
def test_so_it_is_with_an_adapter_behind_frozen_ones(
    name: str,
    adapted: Callable[..., Learner],
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With per_stage: new the teacher has other values of what is frozen by now, which are held rounded."""
    from forgetmenot.models.adapt import adapt

    settings = AdapterSettings(per_stage="new")
    learner = adapted(per_stage="new")
    method = make_method(name, {"strength": 5.0}, seed=0)
    method.begin(learner, stage)
    move(learner)
    learner.model = adapt(learner.model, settings, 2, seed=1)
    method.begin(learner, stage)
    move(learner)
    check(learner, method, examples, monkeypatch)


def move(learner: Learner) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in learner.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


NEEDS: dict[str, dict[str, Any]] = {
    "weight-averaging": {"per_stage": "merge"},
    "adapter-per-task": {"per_stage": "new"},
    "o-lora": {"per_stage": "new"},
    "progressive-prompts": {"kind": "prompt", "per_stage": "new", "tokens": 4},
    "osf": {"kind": "full"},
}


RISING = ("asft", "dft")
"""Whose loss, −p log p, rises until a token's probability is 1/e, which the tiny model begins far below."""


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_in_bf16_as_in_fp32(name: str, go: Callable[..., Run]) -> None:
    """The mean loss of each stage's first and last three steps."""
    config = {
        "method": {"name": name, **({"strength": 0.5} if name == "ema" else {})},
        "adapter": NEEDS.get(name, {}),
        "training.learning_rate": 0.03 if name == "progressive-prompts" else 3e-3,
        "training.epochs": 3,
        "evaluation.limit": 4,
        **ROOMY.get(name, {}),
    }
    falls = {}
    for precision in ("fp32", "bf16"):
        run = go(precision, {**config, "training.precision": precision})
        falls[precision] = [(steps["loss"][:3].mean(), steps["loss"][-3:].mean()) for steps in trained(run)]
    for (_, exact), (_, rounded) in zip(falls["fp32"], falls["bf16"], strict=True):
        assert rounded == pytest.approx(exact, rel=0.1, abs=0.1)
    first, last = falls["bf16"][0]
    assert last > first if name in RISING else last < first


def trained(run: Run) -> list[Any]:
    import pandas as pd

    paths = sorted(run.path.glob("stages/*/training.jsonl"))
    return [pd.read_json(path, lines=True) for path in paths]
