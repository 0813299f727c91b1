"""LoRA-Null: where adapters begin, against the official code's formulas, and what that keeps as it was."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.lora_null import null_factors
from forgetmenot.methods.shared.layer_inputs import square_root
from forgetmenot.methods.shared.lora_layers import learning, linear_layers, weight_before
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.adapters.lora import LORA
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.methods.stages import inputs_alone, learn, through_disk, train

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]
OUTPUTS, WIDTH, RANK = 7, 12, 3


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def factors(weight: np.ndarray, inputs: np.ndarray, rank: int = RANK) -> tuple[np.ndarray, np.ndarray]:
    root = square_root(torch.from_numpy(inputs @ inputs.T))
    up, down = null_factors(torch.from_numpy(weight), root, rank)
    return up.numpy(), down.numpy()


def test_it_begins_where_the_official_code_begins() -> None:
    """The last left singular vectors of X; the weight in their span; its own singular vectors, halved."""
    weight, inputs = (
        drawn(OUTPUTS, WIDTH),
        drawn(WIDTH, 40, seed=1) * 10.0 ** np.linspace(-2, 1, WIDTH)[:, None],
    )
    least = np.linalg.svd(inputs)[0][:, -RANK:]
    part = weight @ least @ least.T
    left, sizes, right = np.linalg.svd(part)
    up, down = factors(weight, inputs)
    assert up @ down == pytest.approx(part, abs=1e-5)
    assert np.abs(up) == pytest.approx(np.abs(left[:, :RANK] * np.sqrt(sizes[:RANK])), abs=1e-5)
    assert np.abs(down) == pytest.approx(np.abs(np.sqrt(sizes[:RANK, None]) * right[:RANK]), abs=1e-5)


def test_of_more_directions_without_inputs_the_weights_largest_are_taken() -> None:
    weight, inputs = drawn(OUTPUTS, WIDTH), drawn(WIDTH, 4, seed=1)
    without = np.linalg.svd(inputs)[0][:, 4:]
    left, sizes, right = np.linalg.svd(weight @ without @ without.T)
    up, down = factors(weight, inputs)
    assert up @ down == pytest.approx(left[:, :RANK] * sizes[:RANK] @ right[:RANK], abs=1e-6)
    assert np.abs(down @ inputs).max() < 1e-6


def test_a_frozen_a_and_a_b_from_0_is_the_papers_residual_and_its_adapter(
    adapted: Adapted, few_examples: Few
) -> None:
    """W′ + B A₀ learns by AdamW on outputs of a layer, and so does what the method makes of the layer."""
    learner = adapted(per_stage="merge")
    method: Any = make_method("lora-null", {}, 0)
    method.kept = {name: square_root(gram) for name, gram in grams(learner, few_examples["near"]).items()}
    method.adapt(learner, Stage(2, ("far",)))
    layer = next(iter(linear_layers(learner).values()))
    scale = layer.scaling["default"]
    weight, a = layer.get_base_layer().weight.detach(), layer.lora_A["default"].weight.detach()
    name = next(iter(linear_layers(learner)))
    up, down = null_factors(weight, method.kept[name], 8)
    assert torch.allclose(a * scale**0.5, down.float(), atol=1e-6)
    rest = (weight - up @ down).float()
    b = torch.nn.Parameter((up / scale**0.5).float())
    inputs, target = (
        torch.from_numpy(drawn(5, n, seed=2)).float() for n in (weight.shape[1], weight.shape[0])
    )
    outputs, learned = {}, layer.lora_B["default"].weight
    layers: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
        "paper": (lambda: inputs @ (rest + scale * b @ a).T, b),
        "ours": (lambda: layer(inputs), learned),
    }
    for kind, (of, parameter) in layers.items():
        optimizer = torch.optim.AdamW([parameter], lr=0.01, weight_decay=0)
        for _ in range(20):
            optimizer.zero_grad()
            (of() - target).square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        outputs[kind] = of().detach()
    assert torch.allclose(outputs["paper"], outputs["ours"], atol=1e-4)
    assert not torch.allclose(outputs["ours"], inputs @ weight.T, atol=0.1)


def grams(learner: Learner, examples: list[Encoded]) -> dict[str, Tensor]:
    """Each adapted layer's R Rᵀ, one sequence at a time."""
    return {
        name.removesuffix(".base_layer"): gram
        for name, gram in inputs_alone(learner, examples).items()
        if name.endswith(".base_layer")
    }


@pytest.mark.parametrize("per_stage", ["new", "merge"])
def test_what_was_asked_before_is_answered_as_before(
    adapted: Adapted, few_examples: Few, tmp_path: Path, per_stage: str
) -> None:
    """Where past inputs leave directions free, whatever AdamW and weight decay make of B."""
    past, new = few_examples["near"][:2], few_examples["far"]
    settings, changed = AdapterSettings(per_stage=per_stage), {}
    for name in ("lora-null", "sequential"):
        learner, method = adapted(per_stage=per_stage), make_method(name, {}, seed=0)
        learn(method, learner, 1, "near", past)
        learner.model = finish_stage(learner.model, settings)
        before, unlearned = learner.score(past), learner.log_likelihoods([e.answer for e in new]).sum()
        learner.model = adapt(learner.model, settings, 2, seed=1)
        learn(through_disk(method, name, tmp_path), learner, 2, "far", new)
        assert learner.log_likelihoods([e.answer for e in new]).sum() > unlearned + 5  # it does learn
        changed[name] = float(np.abs(np.array(learner.score(past)) - np.array(before)).max())
    assert changed["lora-null"] < 1e-3
    assert changed["sequential"] > 0.1


def test_beside_or_merged_it_begins_the_same(adapted: Adapted, few_examples: Few) -> None:
    """Earlier adapters are part of the weight."""
    found = {}
    for per_stage in ("new", "merge"):
        settings = AdapterSettings(per_stage=per_stage)
        learner, method = adapted(per_stage=per_stage), make_method("lora-null", {}, seed=0)
        learn(method, learner, 1, "near", few_examples["near"])
        learner.model = adapt(finish_stage(learner.model, settings), settings, 2, seed=1)
        method.adapt(learner, Stage(2, ("far",)))
        found[per_stage] = {
            name: (weight_before(layer), layer.lora_A[learning(layer)].weight)
            for name, layer in linear_layers(learner).items()
        }
    for name, (weight, a) in found["new"].items():
        other, merged = found["merge"][name]
        assert torch.allclose(weight, other, atol=1e-6)
        assert torch.allclose(a.T @ a, merged.T @ merged, atol=1e-3), name


def test_what_an_a_that_learns_begins_with_is_taken_off_the_weights(
    adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    """As one adapter of twice the rank on the base, whose second half stays under AdamW and weight decay."""
    learner, method = adapted(per_stage="new"), make_method("lora-null", {"down": "learned"}, seed=0)
    plain = learner.score(few_examples["near"])
    stage = Stage(1, ("near",), data={"near": few_examples["near"]}, further={"far": few_examples["far"]})
    method.adapt(learner, stage)
    assert np.allclose(learner.score(few_examples["near"]), plain, atol=1e-4)
    wanted, began = {}, learner.snapshot()
    for name, layer in linear_layers(learner).items():
        a, b = (one["default"].weight.detach().double() for one in (layer.lora_A, layer.lora_B))
        assert a.shape[0] == b.shape[1] == 16
        assert torch.equal(a[:8], a[8:])
        assert torch.equal(b[:, :8], -b[:, 8:])
        part = layer.scaling["default"] * b[:, :8] @ a[:8]
        values, vectors = torch.linalg.eigh(grams(learner, few_examples["far"])[name])
        free = vectors[:, : max(8, int((values <= 1e-12 * values.sum()).sum()))]
        assert torch.allclose(part @ free @ free.T, part, atol=1e-5)
        wanted[name] = weight_before(layer) - part
    train(method, learner, few_examples["near"])
    for name, value in learner.trainable().items():
        fixed, free_half = (value[8:], value[:8]) if "lora_A" in name else (value[:, 8:], value[:, :8])
        first, moved = (
            (began[name][8:], began[name][:8])
            if "lora_A" in name
            else (began[name][:, 8:], began[name][:, :8])
        )
        assert torch.equal(fixed, first), name
        assert not torch.allclose(free_half, moved, atol=1e-3), name
    for name, layer in linear_layers(learner).items():
        a, b = (one["default"].weight.detach().double() for one in (layer.lora_A, layer.lora_B))
        dense = wanted[name] + layer.scaling["default"] * b[:, :8] @ a[:8]
        assert torch.allclose(
            layer.get_base_layer().weight + layer.get_delta_weight("default"), dense.float(), atol=1e-5
        )
    tuned = learner.score(few_examples["near"])
    (tmp_path / "stage").mkdir()
    LORA.save(learner.model, tmp_path / "stage")
    base = adapted().model.unload()
    loaded = LORA.load(base, tmp_path / "stage", trainable=False)
    assert isinstance(loaded, PeftModel)
    assert (loaded.peft_config["default"].r, loaded.peft_config["default"].lora_alpha) == (16, 32)
    assert np.allclose(replace(learner, model=loaded).score(few_examples["near"]), tuned, atol=1e-5)


def test_each_task_counts_alike_and_the_state_comes_back(
    adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    learner, method = adapted(per_stage="new"), make_method("lora-null", {"examples": 99}, seed=0)
    method.adapt(learner, Stage(1, ("near",), further={"far": few_examples["far"]}))
    method.end(learner, Stage(1, ("near",), data={"near": few_examples["near"][:3]}))
    again: Any = through_disk(method, "lora-null", tmp_path, examples=99)
    far, near = grams(learner, few_examples["far"]), grams(learner, few_examples["near"][:3])
    assert again.kept.keys() == far.keys()
    for name, root in again.kept.items():
        one, other = (gram / gram.diagonal().mean() for gram in (far[name], near[name]))
        wanted = one + other
        assert torch.allclose(root.double() @ root.double().T, wanted, rtol=1e-4, atol=1e-4), name


def test_it_knows_layers_that_hold_their_weights_transposed(few_examples: Few) -> None:
    """GPT-2's: inputs by outputs."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    settings = AdapterSettings(per_stage="merge", targets=["c_attn", "c_fc"])
    learner = Learner(adapt(GPT2LMHeadModel(config).eval(), settings, 1, seed=0), None, 512)
    method, past = make_method("lora-null", {}, seed=0), few_examples["near"][:2]
    learn(method, learner, 1, "near", past)
    learner.model = adapt(finish_stage(learner.model, settings), settings, 2, seed=1)
    before = learner.score(past)
    learn(method, learner, 2, "far", few_examples["far"])
    assert np.array(learner.score(past)) == pytest.approx(np.array(before), abs=1e-3)


def test_what_has_no_free_directions_is_refused(adapted: Adapted) -> None:
    for settings, said in (
        ({"rank": 17}, r"adapter\.rank: this method takes at most 16 here"),
        ({"targets": ["embed_tokens"]}, r"adapter\.targets: .*embed_tokens is an embedding"),
    ):
        learner = adapted(per_stage="new", **settings)
        with pytest.raises(UserError, match=said):
            make_method("lora-null", {}, 0).adapt(learner, Stage(1, ("near",)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"examples": -1}, r"^method\.examples: "),
        ({"down": "fixed"}, r"^method\.down: "),
        ({"sources": "size"}, r"^method\.sources: 'size' is no task of this run"),
        ({"sources": "near,far"}, r"^method\.sources: every task is a source"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_method("lora-null", options, 0).stages(["near", "far"])
