"""A run whose tries go through FlexAttention, here by PyTorch's unfused reference of it."""

import json
from typing import Any

import numpy as np
import pytest

from forgetmenot.engine.attention import use_attention
from forgetmenot.runs import session
from tests.engine.test_flex import unfused  # noqa: F401
from tests.running import Go

SMALL = {"training.limit": 8, "evaluation.limit": 8}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_it_stays_through_all_stages_and_changes_no_number(
    kind: str,
    go: Go,
    monkeypatch: pytest.MonkeyPatch,
    unfused: list[int],  # noqa: F811
) -> None:
    dense = go("dense", {**SMALL, "adapter.kind": kind})
    assert not unfused
    monkeypatch.setattr(session, "choose_attention", lambda *_: "flex")
    monkeypatch.setattr(session, "use_attention", (used := Uses(use_attention)))
    flex = go("flex", {**SMALL, "adapter.kind": kind})
    assert unfused
    assert set(used.kinds) == {"flex"}
    identity = json.loads((flex.path / "environment.json").read_text())["identity"]
    assert identity["attention"] == "flex_over_sdpa"
    assert np.allclose(flex.matrix, dense.matrix)
    for stage in range(len(dense.matrix)):
        likelihoods = [run.predictions(stage) for run in (flex, dense)]
        assert likelihoods[0]["predicted"].tolist() == likelihoods[1]["predicted"].tolist()


class Uses:
    """Notes every kind of attention that a model is brought into."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.kinds: list[str] = []

    def __call__(self, model: Any, attention: Any) -> None:
        self.kinds.append(attention)
        self.original(model, attention)
