"""A model sharded over two processes by FSDP2 learns and answers as one that is whole."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor

from forgetmenot.engine import head, ranks, shards
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import Step, fit
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from tests.engine.conftest import VOCABULARY
from tests.engine.test_generate import words

SETTINGS = TrainingSettings(batch_size=8, schedule="constant", warmup_ratio=0, max_grad_norm=0.5)


@dataclass
class PulledBack:
    """The plain objective, a pull to where training began, and the gradient of the first step."""

    anchor: dict[str, Tensor]
    gradient: dict[str, Tensor] = field(default_factory=dict)
    forwards: int = 0

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        self.forwards += 1
        return -learner.forward([example.answer for example in batch]).sum()

    def penalty(self, learner: Learner) -> Tensor | None:
        parts = [(p - self.anchor[name] + 0.01).square().sum() for name, p in learner.trainable().items()]
        total: Tensor = sum(parts[1:], parts[0])
        return total

    def gradients(self, learner: Learner) -> None:
        if not self.gradient:
            self.gradient = {
                n: shards.whole(p.grad).clone() for n, p in learner.trainable().items() if p.grad is not None
            }

    def stepped(self, learner: Learner) -> None: ...


def flat(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([named[name].detach().flatten() for name in sorted(named)])


@pytest.mark.parametrize("rows", [None, 5], ids=["logits at once", "logits in chunks"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_sharded_model_is_as_a_whole_one(
    llama: Any,
    examples: list[Encoded],
    sequences: list[TokenSequence],
    in_processes: Callable[..., list[Any]],
    join_sharded: Callable[[], None],
    tied: bool,
    rows: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if rows:
        monkeypatch.setattr(head, "LOGITS_BYTES", 4 * VOCABULARY * rows)
    if tied:
        llama.config.tie_word_embeddings = True
        llama.tie_weights()
    prompts = [sequence.tokens for sequence in sequences[:5]]

    def body() -> dict[str, Any]:
        learner = Learner(copy.deepcopy(llama), words(1, None), budget=64)
        if ranks.world_size() > 1:
            learner.model = shards.shard(learner.model)
        before = learner.log_likelihoods(sequences)
        states, kept = learner.states(sequences), head.KeptHead(learner.head().weight.detach().clone())
        start = dict(learner.snapshot())
        objective = PulledBack(start)
        steps: list[Step] = []
        fit(
            learner,
            examples[:17],  # the last batch is a single example: one process only keeps step
            objective,
            SETTINGS,
            accelerator=Accelerator(cpu=True),
            epochs=1,
            learning_rate=1e-3,
            seed=3,
            on_step=steps.append,
        )
        after = learner.log_likelihoods(sequences)  # leaves layers gathered: what follows must see shards
        kinds = {isinstance(p, DTensor) for p in learner.trainable().values()}
        with learner.with_weights(start):
            again = learner.log_likelihoods(sequences)
        weights = shards.whole_weights(learner.model)
        return {
            "sharded": kinds,
            "scores": (before, after, again, learner.log_likelihoods(sequences)),
            "gradient": flat(objective.gradient),
            "weights": flat({n: shards.whole(p) for n, p in learner.trainable().items()}),
            "steps": steps,
            "forwards": objective.forwards,
            "texts": learner.generate(prompts, 5),
            "divergences": learner.divergences(sequences, states, kept),
            "gathered": weights,
        }

    def sharded() -> dict[str, Any]:
        join_sharded()
        return body()

    one = body()
    first, second = in_processes(sharded)
    assert one["sharded"] == {False}
    assert one["gathered"] is None
    assert second["gathered"] == {}
    assert set(first["gathered"]) == set(llama.state_dict())
    names = sorted(name for name, _ in llama.named_parameters())
    assert torch.equal(flat({name: first["gathered"][name] for name in names}), first["weights"])
    assert first["forwards"] == second["forwards"]
    for two in (first, second):
        assert two["sharded"] == {True}
        assert (two["gradient"] - one["gradient"]).norm() < 1e-5 * one["gradient"].norm()
        assert float((two["weights"] - one["weights"]).abs().max()) < 1e-5
        for scores, wanted in zip(two["scores"], one["scores"], strict=True):
            assert float((scores - wanted).abs().max()) < 2e-4
        assert torch.equal(two["scores"][2], two["scores"][0])
        assert torch.equal(two["scores"][3], two["scores"][1])
        for step, wanted in zip(two["steps"], one["steps"], strict=True):
            assert step.loss == pytest.approx(wanted.loss, rel=1e-4)
            assert step.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-4)
        assert two["texts"] == one["texts"]
        assert torch.allclose(two["divergences"], one["divergences"], atol=1e-5)
        assert one["divergences"].max() > 1e-4
