"""The base model as teacher: the right numbers, and still the base after further stages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.kl import KL
from forgetmenot.models.adapt import adapt
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded


@pytest.mark.parametrize("per_stage", ["full", "continue", "new"])
def test_it_is_the_divergence_from_the_base_in_every_stage(
    per_stage: str,
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    plain: Callable[..., Any],
) -> None:
    kind = {"kind": "full"} if per_stage == "full" else {"per_stage": per_stage}
    adapter = AdapterSettings.model_validate(kind)
    base = [softmax(plain(e.answer), -1) for e in examples]
    state: dict[str, Any] = {}
    for number in (1, 2, 3):
        method = KL(KL.Options(strength=0.5))
        method.load_state_dict(state)
        learner.model = adapt(learner.model, adapter, number, seed=number)
        method.begin(learner, replace(stage, number=number))
        shaken()
        now = [softmax(plain(e.answer), -1) for e in examples]
        drift = sum(entropy(q, p, axis=-1).sum() for q, p in zip(base, now, strict=True))
        nll = -learner.forward([e.answer for e in examples]).sum().item()
        assert method.loss(learner, examples).item() == pytest.approx(nll + 0.5 * drift, rel=1e-4)
        assert drift > 1e-3
        state = {name: value.clone() for name, value in method.state_dict().items()}


def test_a_base_that_is_merged_away_is_refused() -> None:
    method = KL()
    method.check(AdapterSettings(per_stage="new"))
    method.check(AdapterSettings(kind="full"))
    with pytest.raises(UserError, match="per_stage: merge"):
        method.check(AdapterSettings(per_stage="merge"))


def test_without_strength_nothing_is_kept(learner: Learner, stage: Stage) -> None:
    method = KL(KL.Options(strength=0))
    method.begin(learner, stage)
    assert method.state_dict() == {}
    examples = stage.data["size"]
    assert torch.equal(method.loss(learner, examples), -learner.forward([e.answer for e in examples]).sum())


def test_options_out_of_bounds_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.strength"):
        make_method("kl", {"strength": -0.1}, 0)
