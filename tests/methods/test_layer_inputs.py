"""Second moments of layers' inputs: taken in groups of layers, they are what they are in one pass."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from forgetmenot.engine.learner import Learner
from forgetmenot.methods import make_method
from forgetmenot.methods.shared import layer_inputs
from forgetmenot.methods.shared.layer_inputs import in_groups
from forgetmenot.prompting import Encoded
from tests.methods.stages import learn


def test_layers_come_in_groups_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {name: nn.Linear(width, 2) for name, width in (("a", 4), ("b", 4), ("c", 8), ("d", 2))}
    monkeypatch.setattr(layer_inputs, "MOST", 8 * (16 + 16))
    assert [list(group) for group in in_groups(layers)] == [["a", "b"], ["c"], ["d"]]
    assert [list(group) for group in in_groups(layers, 2)] == [["a"], ["b"], ["c"], ["d"]]
    assert list(in_groups({})) == []


@pytest.mark.parametrize("name", ["gpm", "lora-null", "inflora", "corda"])
def test_groups_change_nothing(
    name: str,
    adapted: Callable[..., Learner],
    few_examples: Mapping[str, list[Encoded]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = []
    for most in (layer_inputs.MOST, 1):  # all at once, and a layer at a time
        monkeypatch.setattr(layer_inputs, "MOST", most)
        method: Any = make_method(name, {}, seed=0)
        learn(method, adapted(per_stage="new"), 1, "near", few_examples["near"])
        states.append(method.state_dict())
    whole, parts = states
    assert whole.keys() == parts.keys() != set()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
