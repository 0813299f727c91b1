"""MoE-LoRA against each expert computed by itself, and gates that live beside the adapter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.models.settings import AdapterSettings

Adapted = Callable[..., Learner]
FIRST = Stage(1, ("animal",))


def _moved(learner: Learner) -> None:
    """As training would: what learns gets other values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in learner.trainable().values():
            value += 0.1 * torch.randn(value.shape, generator=generator)


def test_a_layer_is_the_sum_of_its_experts_by_their_weights(adapted: Adapted) -> None:
    learner, method = adapted(rank=6, alpha=12.0), make_method("moe-lora", {"experts": 3}, 0)
    method.adapt(learner, FIRST)
    _moved(learner)
    layers = [module for module in learner.model.modules() if isinstance(module, LoraLayer)]
    gates = [value for name, value in learner.trainable().items() if "expert_gates" in name]
    assert len(gates) == len(layers) == 2 * 7
    for layer, gate in zip(layers, gates, strict=True):
        base = layer.get_base_layer()
        x = torch.randn(2, 5, base.in_features)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        expected = base(x)
        for row in range(2):
            for column in range(5):
                token = x[row, column]
                weights = torch.exp(gate @ token) / torch.exp(gate @ token).sum()
                for e in range(3):
                    block = slice(2 * e, 2 * e + 2)
                    expected[row, column] += 3 * weights[e] * 2.0 * (b[:, block] @ (a[block] @ token))
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_it_begins_as_plain_lora_and_its_gates_learn(adapted: Adapted, few_examples: Any) -> None:
    learner, plain = adapted(), adapted()
    for one in (learner, plain):
        _moved(one)
    make_method("moe-lora", {}, 0).adapt(learner, FIRST)
    examples = few_examples["near"]
    with_gates, without = learner.score(examples), plain.score(examples)  # these fold the adapter
    assert np.allclose(with_gates, without, rtol=1e-6)
    gradients = learner.gradient_of(examples)
    gates = [value for name, value in gradients.items() if "expert_gates" in name]
    assert len(gates) == 2 * 7
    assert all(value.abs().sum() > 0 for value in gates)


def test_shared_prefixes_stay_exact(adapted: Adapted, few_examples: Any) -> None:
    learner = adapted()
    make_method("moe-lora", {}, 0).adapt(learner, FIRST)
    _moved(learner)
    together = learner.score(few_examples["near"])
    learner.layout = "single"
    assert np.allclose(learner.score(few_examples["near"]), together, atol=1e-4)


def test_a_model_from_disk_gets_its_gates_back(adapted: Adapted, few_examples: Any) -> None:
    learner, method = adapted(), make_method("moe-lora", {}, 0)
    method.adapt(learner, FIRST)
    _moved(learner)
    fresh, again = adapted(), make_method("moe-lora", {}, 0)
    again.load_state_dict(method.state_dict())
    for name, value in fresh.trainable().items():
        value.data.copy_(learner.trainable()[name])
    learning = set(fresh.trainable())
    for _ in range(2):
        with again.answering(fresh):
            scores = fresh.score(few_examples["near"])
        assert np.array_equal(scores, learner.score(few_examples["near"]))
    assert set(fresh.trainable()) == learning
    again.adapt(fresh, Stage(2, ("colour",)))
    assert list(fresh.trainable()) == list(learner.trainable())


def test_experts_share_the_rank() -> None:
    method = make_method("moe-lora", {"experts": 3}, 0)
    method.check(AdapterSettings(rank=6))
    with pytest.raises(UserError, match=r"method\.experts: 3 experts cannot share adapter\.rank 8 evenly"):
        method.check(AdapterSettings())
    with pytest.raises(UserError, match=r"adapter\.per_stage: this method works with continue, not new"):
        method.check(AdapterSettings(per_stage="new", rank=6))
    with pytest.raises(UserError, match=r"method\.experts: "):
        make_method("moe-lora", {"experts": 0}, 0)
