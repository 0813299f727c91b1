"""CorDA against PEFT's own, from its beginning through training to the adapter that is saved."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.corda import least_factors
from forgetmenot.methods.shared.lora_layers import linear_layers
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.adapters.lora import LORA
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.prompting import Encoded
from tests.methods.stages import inputs_alone, learn, through_disk, train

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]
PREFIX = "base_model.model."


@pytest.fixture
def base(tiny_llama: Path) -> Callable[[], Any]:
    """The tiny Llama alone."""
    settings = ModelSettings(name=str(tiny_llama))
    return lambda: load_model(settings, trainable=False, device=torch.device("cpu")).model


@pytest.fixture
def pefts(base: Callable[[], Any], tmp_path: Path) -> Callable[[Mapping[str, Tensor]], PeftModel]:
    """PEFT's CorDA of the tiny Llama by given second moments of the layers' inputs."""

    def make(moments: Mapping[str, Tensor]) -> PeftModel:
        file = tmp_path / "covariance" / "c.pt"
        file.parent.mkdir()
        means = {name: value / value.diagonal().mean() for name, value in moments.items()}
        torch.save({name.removeprefix(PREFIX): value.float() for name, value in means.items()}, file)
        names = sorted({name.rpartition(".")[2] for name in moments})
        config = LoraConfig(
            r=8,
            lora_alpha=16,
            target_modules=names,
            task_type="CAUSAL_LM",
            init_lora_weights="corda",
            corda_config=CordaConfig(corda_method="kpm", covariance_file=str(file)),
        )
        model = base()
        preprocess_corda(model, config)
        made = get_peft_model(model, config)
        assert isinstance(made, PeftModel)
        return made

    return make


def begun(adapted: Adapted, few: Few) -> tuple[Learner, Any]:
    """A learner whose adapters begin by the inputs of `near`."""
    learner, method = adapted(per_stage="new"), make_method("corda", {"examples": 99}, seed=0)
    method.adapt(learner, Stage(1, ("far",), data={"far": few["far"]}, further={"near": few["near"]}))
    return learner, method


def test_it_begins_as_pefts_corda(
    adapted: Adapted, few_examples: Few, pefts: Callable[[Mapping[str, Tensor]], PeftModel]
) -> None:
    """Factor by factor up to signs, and the weights without the part that the adapter takes."""
    learner, method = begun(adapted, few_examples)
    other = linear_layers(Learner(pefts(method.kept), None, 512))
    for name, layer in linear_layers(learner).items():
        a, b = (one["default"].weight.detach() for one in (layer.lora_A, layer.lora_B))
        theirs_a, theirs_b = (
            one["default"].weight.detach() for one in (other[name].lora_A, other[name].lora_B)
        )
        assert torch.allclose(a[:8].abs(), theirs_a.abs(), rtol=0.02, atol=2e-3), name
        assert torch.allclose(b[:, :8].abs(), theirs_b.abs(), rtol=0.02, atol=2e-3), name
        assert torch.allclose(b[:, :8] @ a[:8], theirs_b @ theirs_a, atol=1e-4), name
        assert torch.equal(a[8:], a[:8])
        assert torch.equal(b[:, 8:], -b[:, :8])
        rest = layer.get_base_layer().weight + layer.scaling["default"] * b[:, 8:] @ a[8:]
        assert torch.allclose(rest, other[name].get_base_layer().weight, atol=1e-4), name
        assert not torch.allclose(rest, layer.get_base_layer().weight, atol=1e-3), name


def test_the_least_part_is_the_least_in_context() -> None:
    """By NumPy: no part of rank r changes less of W C, and with C = 1 it is the weight's own SVD."""
    draw = np.random.default_rng(0)
    weight, inputs = draw.normal(size=(7, 9)), draw.normal(size=(9, 50)) * np.logspace(-1, 1, 9)[:, None]
    c = inputs @ inputs.T / (inputs**2).sum() * 9 + 0.01 * np.eye(9)
    up, down = (
        x.numpy() for x in least_factors(torch.from_numpy(weight), torch.from_numpy(inputs @ inputs.T), 3)
    )
    sizes = np.linalg.svd(weight @ c)[1]
    assert np.linalg.norm(up @ down @ c) == pytest.approx(np.linalg.norm(sizes[-3:]))
    assert np.linalg.matrix_rank(weight - up @ down, tol=1e-9) == 7 - 3
    left, sizes, right = np.linalg.svd(weight, full_matrices=False)
    up, down = (x.numpy() for x in least_factors(torch.from_numpy(weight), torch.eye(9), 3))
    assert up @ down == pytest.approx(left[:, -3:] * sizes[-3:] @ right[-3:])


def test_it_learns_as_pefts_corda_and_is_saved_as_plain_lora_on_the_base(
    adapted: Adapted,
    few_examples: Few,
    pefts: Callable[[Mapping[str, Tensor]], PeftModel],
    base: Callable[[], Any],
    tmp_path: Path,
) -> None:
    """Through AdamW with weight decay; then loaded onto the base, whose weights are the published ones."""
    learner, method = begun(adapted, few_examples)
    other = replace(learner, model=pefts(method.kept))
    plain = learner.score(few_examples["far"])
    assert np.allclose(other.score(few_examples["far"]), plain, atol=1e-3)
    train(method, learner, few_examples["far"])
    train(make_method("sequential", {}, 0), other, few_examples["far"])
    tuned = np.array(learner.score(few_examples["far"]))
    assert np.abs(tuned - np.array(plain)).max() > 1
    assert np.allclose(other.score(few_examples["far"]), tuned, atol=0.05)
    (tmp_path / "stage").mkdir()
    LORA.save(learner.model, tmp_path / "stage")
    loaded = LORA.load(base(), tmp_path / "stage", trainable=False)
    assert (loaded.peft_config["default"].r, loaded.peft_config["default"].lora_alpha) == (16, 32)
    assert np.allclose(replace(learner, model=loaded).score(few_examples["far"]), tuned, atol=1e-5)


@pytest.mark.parametrize("per_stage", ["new", "merge"])
def test_the_half_that_holds_the_beginning_stays(adapted: Adapted, few_examples: Few, per_stage: str) -> None:
    """In each stage that has a past; the first has none, and is plain LoRA."""
    settings = AdapterSettings(per_stage=per_stage)
    learner, method = adapted(per_stage=per_stage), make_method("corda", {}, seed=0)
    learn(method, learner, 1, "near", few_examples["near"])
    assert {len(v) for name, v in learner.trainable().items() if ".lora_A." in name} == {8}
    learner.model = adapt(finish_stage(learner.model, settings), settings, 2, seed=1)
    stage = Stage(2, ("far",), data={"far": few_examples["far"]})
    before = learner.score(few_examples["near"])
    method.adapt(learner, stage)
    assert np.allclose(learner.score(few_examples["near"]), before, atol=1e-4)
    began = learner.snapshot()
    train(method, learner, few_examples["far"])
    for name, value in learner.trainable().items():
        now, then = (x if ".lora_A." in name else x.T for x in (value, began[name]))
        assert now.shape[0] == 16
        assert torch.equal(now[8:], then[8:]), name
        assert not torch.allclose(now[:8], then[:8], atol=1e-3), name


def test_each_task_counts_alike_and_the_state_comes_back(
    adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    learner, method = adapted(per_stage="new"), make_method("corda", {"examples": 99}, seed=0)
    for number, (task, examples) in enumerate(few_examples.items(), start=1):
        method.end(learner, Stage(number, (task,), data={task: examples}))
    again: Any = through_disk(method, "corda", tmp_path, examples=99)
    far, near = (inputs_alone(learner, few_examples[task]) for task in ("far", "near"))
    for name, kept in again.kept.items():
        one, two = (
            gram[f"{name}.base_layer"] / gram[f"{name}.base_layer"].diagonal().mean() for gram in (far, near)
        )
        assert torch.allclose(kept.double(), one + two, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("settings", [{"kind": "full"}, {"per_stage": "continue"}])
def test_it_needs_adapters_of_their_own(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"adapter\.(kind|per_stage): this method works with"):
        make_method("corda", {}, 0).check(AdapterSettings(**settings))
