"""InfLoRA: where A lies, by NumPy on the inputs themselves, and what is answered as before."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.inflora import free_directions
from forgetmenot.methods.shared.layer_inputs import extend
from forgetmenot.methods.shared.lora_layers import learning, linear_layers, weight_before
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.methods.stages import inputs_alone, learn, through_disk

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]
WIDTH, RANK = 12, 3


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("before", [0, 4, 10, 12])
def test_a_has_the_leading_singular_vectors_of_what_the_past_leaves(before: int) -> None:
    inputs = drawn(WIDTH, 30) * 10.0 ** np.linspace(-1, 1, WIDTH)[:, None]
    basis = np.linalg.qr(drawn(WIDTH, WIDTH, seed=1))[0][:, :before]
    rest = inputs - basis @ basis.T @ inputs
    left = np.linalg.svd(rest)[0][:, : min(RANK, WIDTH - before)]
    given = torch.from_numpy(basis).float() if before else None
    rows = free_directions(torch.from_numpy(inputs @ inputs.T), given, RANK).numpy()
    assert rows.shape == (RANK, WIDTH)
    assert rows.T @ rows == pytest.approx(left @ left.T, abs=1e-5)
    assert np.abs(rows @ basis).max(initial=0) < 1e-6
    assert (np.linalg.norm(rows, axis=1) > 0.5).tolist() == [k < WIDTH - before for k in range(RANK)]


def test_a_is_of_the_tasks_inputs_before_it_is_learned(adapted: Adapted, few_examples: Few) -> None:
    """Of the size of PEFT's A on average: rows of norm 1/√3."""
    learner, method = adapted(per_stage="new"), make_method("inflora", {"examples": 99}, seed=0)
    random = [
        layer.lora_A["default"].weight.detach().norm(dim=1) for layer in linear_layers(learner).values()
    ]
    assert float(torch.cat(random).square().mean()) == pytest.approx(1 / 3, rel=0.1)
    alone = inputs_alone(learner, few_examples["near"])
    method.adapt(learner, Stage(1, ("near",), data={"near": few_examples["near"]}))
    assert all(".lora_B." in name for name in learner.trainable())
    for name, layer in linear_layers(learner).items():
        a = layer.lora_A["default"].weight
        leading = torch.linalg.eigh(alone[f"{name}.base_layer"])[1].flip(1)[:, :8]
        assert torch.allclose(3 * a.T @ a, (leading @ leading.T).float(), atol=1e-3), name


def test_learning_b_is_tuning_the_weight_within_the_span_of_a(adapted: Adapted, few_examples: Few) -> None:
    """A step of plain gradient descent, by the gradient of the dense weight: ΔW = −η s² G Aᵀ A."""
    learner, method = adapted(per_stage="new"), make_method("inflora", {}, seed=0)
    method.adapt(learner, Stage(1, ("near",), data={"near": few_examples["near"]}))
    layers = linear_layers(learner)
    for layer in layers.values():
        layer.get_base_layer().weight.requires_grad_()
    loss = -learner.forward([example.answer for example in few_examples["near"]]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, layer in layers.items():
        dense, b = layer.get_base_layer().weight.grad, layer.lora_B["default"].weight
        a, scale = layer.lora_A["default"].weight, layer.scaling["default"]
        assert b.grad is not None
        change = scale * (-0.1 * b.grad) @ a
        assert torch.allclose(change, -0.1 * scale**2 * dense @ a.T @ a, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("per_stage", ["new", "merge"])
def test_at_threshold_one_the_past_is_answered_as_before(
    adapted: Adapted, few_examples: Few, tmp_path: Path, per_stage: str
) -> None:
    """Whatever AdamW and weight decay make of B; A stays."""
    past, new = few_examples["near"][:2], few_examples["far"]
    settings, changed = AdapterSettings(per_stage=per_stage), {}
    for name, options in (("inflora", {"threshold": 1}), ("sequential", {})):
        learner, method = adapted(per_stage=per_stage), make_method(name, options, seed=0)
        learn(method, learner, 1, "near", past)
        learner.model = finish_stage(learner.model, settings)
        before, unlearned = learner.score(past), learner.log_likelihoods([e.answer for e in new]).sum()
        learner.model = adapt(learner.model, settings, 2, seed=1)
        learn(through_disk(method, name, tmp_path, **options), learner, 2, "far", new)
        assert learner.log_likelihoods([e.answer for e in new]).sum() > unlearned + 5  # it does learn
        changed[name] = float(np.abs(np.array(learner.score(past)) - np.array(before)).max())
    assert changed["inflora"] < 1e-3
    assert changed["sequential"] > 0.1


def test_what_each_task_needs_is_added_and_comes_back(
    adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    options = {"threshold": 0.9, "examples": 99}
    learner, method = adapted(per_stage="new"), make_method("inflora", options, seed=0)
    method.adapt(learner, Stage(1, ("near",), further={"far": few_examples["far"]}))
    method.end(learner, Stage(1, ("near",), data={"near": few_examples["near"]}))
    again: Any = through_disk(method, "inflora", tmp_path, **options)
    far, near = inputs_alone(learner, few_examples["far"]), inputs_alone(learner, few_examples["near"])
    for name in linear_layers(learner):
        basis = extend(None, far[f"{name}.base_layer"], 0.9)
        basis = extend(basis, near[f"{name}.base_layer"], 0.9)
        assert 0 < basis.shape[1] < len(basis)
        kept = again.kept[name]
        assert torch.allclose(kept @ kept.T, basis @ basis.T, atol=1e-3), name


def test_where_the_past_needs_everything_nothing_learns_and_it_says_so(
    adapted: Adapted, few_examples: Few
) -> None:
    learner = adapted(per_stage="new")
    method: Any = make_method("inflora", {}, seed=0)
    method.kept = {
        name: torch.eye(layer.lora_A[learning(layer)].in_features)
        for name, layer in linear_layers(learner).items()
    }
    weights = {name: weight_before(layer) for name, layer in linear_layers(learner).items()}
    learn(method, learner, 2, "near", few_examples["near"])
    assert any(note.startswith("100.0% of the adapters' rank stays unused") for note in method.notes)
    for name, layer in linear_layers(learner).items():
        assert torch.equal(layer.get_base_layer().weight + layer.get_delta_weight("default"), weights[name])


@pytest.mark.parametrize(("option", "value"), [("threshold", 1.1), ("threshold", -0.1), ("examples", -1)])
def test_options_are_checked(option: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^method\.{option}: "):
        make_method("inflora", {option: value}, 0)
