"""SLAO's beginnings and merges, by SciPy and NumPy, and what it keeps of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.shared.lora_layers import linear_layers
from forgetmenot.methods.slao import orthonormal
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.methods.stages import through_disk

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]
Factors = dict[str, tuple[np.ndarray, np.ndarray]]


def test_a_task_begins_with_the_q_of_the_last_a() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 9))
    q, r = scipy.linalg.qr(rows.T, mode="economic")
    expected = (q * np.sign(np.diag(r))).T
    found = orthonormal(torch.from_numpy(rows)).numpy()
    assert found == pytest.approx(expected, abs=1e-12)
    assert found @ found.T == pytest.approx(np.eye(4), abs=1e-12)
    assert rows @ found.T @ found == pytest.approx(rows, abs=1e-12)
    assert orthonormal(torch.from_numpy(found)).numpy() == pytest.approx(found, abs=1e-12)


def factors(learner: Learner) -> Factors:
    """A and B of each layer."""
    found = {}
    for name, layer in linear_layers(learner).items():
        a, b = (
            one["default"].weight.detach().double().numpy().copy() for one in (layer.lora_A, layer.lora_B)
        )
        found[name] = (a, b)
    return found


def play(
    method: Any, learner: Learner, number: int, data: Mapping[str, list[Encoded]]
) -> tuple[Factors, Factors]:
    """A stage that moves everything at random; returns A and B where it begins and where training ends."""
    stage = Stage(number, ("task",), data=data)
    method.adapt(learner, stage)
    method.begin(learner, stage)
    began = factors(learner)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for value in learner.trainable().values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    ended = factors(learner)
    method.end(learner, stage)
    return began, ended


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_of_four_tasks_a_is_the_last_and_b_the_weighted_mean(
    adapted: Adapted, few_examples: Few, tmp_path: Path, power: float
) -> None:
    """The recursion written out: B_i with the weight λ(i) Π_{j>i} (1 − λ(j)); with power 1 all alike."""
    learner, method = adapted(), make_method("slao", {"power": power}, seed=0)
    ends: list[Factors] = []
    for number in range(1, 5):
        began, ended = play(method, learner, number, few_examples)
        if ends:
            for name, (a, b) in began.items():
                q, r = scipy.linalg.qr(ends[-1][name][0].T, mode="economic")
                assert a == pytest.approx((q * np.sign(np.diag(r))).T, abs=1e-5)
                assert b == pytest.approx(ends[-1][name][1], abs=1e-6)
        ends.append(ended)
        method = through_disk(method, "slao", tmp_path, power=power)
        share = np.arange(1, number + 1) ** -power
        weights = share * np.append(np.cumprod((1 - share)[:0:-1])[::-1], 1)
        assert weights.sum() == pytest.approx(1)
        if power == 1:
            assert weights == pytest.approx(1 / number)
        for name, (a, b) in factors(learner).items():
            assert a == pytest.approx(ended[name][0])
            assert b == pytest.approx(
                sum(w * e[name][1] for w, e in zip(weights, ends, strict=True)), abs=1e-6
            )


def test_memory_does_not_grow(adapted: Adapted, few_examples: Few) -> None:
    learner, method = adapted(), make_method("slao", {}, seed=0)
    sizes = []
    for number in (1, 2, 3):
        play(method, learner, number, few_examples)
        sizes.append(sum(value.numel() for value in method.state_dict().values()))
    b = sum(value.numel() for name, value in learner.trainable().items() if ".lora_B." in name)
    assert sizes == [b] * 3


def test_a_stage_without_examples_changes_nothing(adapted: Adapted, few_examples: Few) -> None:
    learner, method = adapted(), make_method("slao", {}, seed=0)
    for number in (1, 2):
        play(method, learner, number, few_examples)
    before, state = learner.snapshot(), method.state_dict()
    empty = Stage(3, ("task",), data={"task": []})
    method.begin(learner, empty)
    method.end(learner, empty)
    assert all(torch.equal(value, before[name]) for name, value in learner.trainable().items())
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("settings", [{"kind": "full"}, {"per_stage": "new"}, {"per_stage": "merge"}])
def test_it_needs_one_adapter(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"adapter\.(kind|per_stage): this method works with"):
        make_method("slao", {}, 0).check(AdapterSettings(**settings))


def test_embeddings_and_a_negative_power_are_refused(adapted: Adapted, few_examples: Few) -> None:
    learner, method = adapted(targets=["embed_tokens"]), make_method("slao", {}, 0)
    with pytest.raises(UserError, match=r"adapter\.targets: .*embed_tokens is an embedding"):
        method.adapt(learner, Stage(1, ("task",), data=few_examples))
    with pytest.raises(UserError, match=r"^method\.power: "):
        make_method("slao", {"power": -1}, 0)
