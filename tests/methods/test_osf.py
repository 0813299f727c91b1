"""OSF: what is preserved stays to rounding, under AdamW too, and grows with the stages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from peft import PeftModel
from peft.tuners.osf import OSFLayer
from transformers import AutoModelForCausalLM, GPT2Config

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.models.settings import AdapterSettings

Adapted = Callable[..., Learner]
FIRST, SECOND = Stage(1, ("animal",)), Stage(2, ("colour",))


def _matrices(learner: Learner) -> dict[str, np.ndarray]:
    return {
        name: value.detach().double().numpy()
        for name, value in learner.model.named_parameters()
        if "_proj" in name
    }


def _learn(learner: Learner, examples: Any, method: Method) -> None:
    fit(
        learner,
        examples,
        method,
        TrainingSettings(batch_size=6),
        accelerator=Accelerator(cpu=True),
        epochs=3,
        learning_rate=3e-3,
        seed=0,
        on_step=lambda step: None,
    )


def _largest_change(before: dict[str, np.ndarray], after: dict[str, np.ndarray], share: float) -> float:
    """Of what the matrices do to their leading directions, from either side, by NumPy's own SVD."""
    changes = []
    for name, matrix in before.items():
        kept = int(min(matrix.shape) * share)
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        left, values, right = left[:, :kept], values[:kept], right[:kept]
        changes.append(abs(after[name] @ right.T - left * values).max())
        changes.append(abs(left.T @ after[name] - values[:, None] * right).max())
    return float(max(changes))


def test_leading_directions_stay_and_the_rest_learns(adapted: Adapted, few_examples: Any) -> None:
    learner, method = adapted(kind="full"), make_method("osf", {}, 0)
    for stage, task, share in ((FIRST, "near", 0.5), (SECOND, "far", 0.75)):
        learner.model.requires_grad_(True)
        before = _matrices(learner)
        method.adapt(learner, stage)
        _learn(learner, few_examples[task], method)
        method.end(learner, replace(stage, data={task: few_examples[task]}))
        after = _matrices(learner)
        assert after.keys() == before.keys()
        assert _largest_change(before, after, share) < 1e-5
        assert min(abs(after[name] - before[name]).max() for name in before) > 1e-3


def test_projected_gradients_alone_would_not_do(
    adapted: Adapted, few_examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, method = adapted(kind="full"), make_method("osf", {}, 0)
    monkeypatch.setattr(method, "stepped", lambda learner: None)
    before = _matrices(learner)
    method.adapt(learner, FIRST)
    _learn(learner, few_examples["near"], method)
    method.end(learner, replace(FIRST, data={"near": few_examples["near"]}))
    assert _largest_change(before, _matrices(learner), 0.5) > 1e-3


def test_what_is_preserved_grows_by_the_same_share_of_what_is_free(adapted: Adapted) -> None:
    for number, share in ((1, 0.25), (2, 0.4375), (3, 1 - 0.75**3)):
        learner = adapted(kind="full")
        make_method("osf", {"preserved": 0.25}, 0).adapt(learner, Stage(number, ("animal",)))
        layers = [module for module in learner.model.modules() if isinstance(module, OSFLayer)]
        assert len(layers) == 2 * 7
        for layer in layers:
            assert layer.effective_rank["default"] == int(min(layer.get_base_layer().weight.shape) * share)


def test_a_stage_begins_and_ends_with_the_same_answers(adapted: Adapted, few_examples: Any) -> None:
    learner, method = adapted(kind="full"), make_method("osf", {}, 0)
    plain = learner.score(few_examples["near"])
    method.adapt(learner, FIRST)
    assert learner.trainable()
    assert all("osf_svd_params" in name for name in learner.trainable())
    assert np.allclose(learner.score(few_examples["near"]), plain, atol=1e-4)
    _learn(learner, few_examples["near"], method)
    split = learner.score(few_examples["near"])
    method.end(learner, replace(FIRST, data={"near": few_examples["near"]}))
    assert not isinstance(learner.model, PeftModel)
    assert np.allclose(learner.score(few_examples["near"]), split, atol=1e-4)
    assert not np.allclose(split, plain, atol=1e-2)


def test_a_stage_without_examples_leaves_plain_weights(adapted: Adapted, few_examples: Any) -> None:
    learner, method = adapted(kind="full"), make_method("osf", {}, 0)
    plain = learner.score(few_examples["near"])
    method.adapt(learner, FIRST)
    method.end(learner, FIRST)
    assert not isinstance(learner.model, PeftModel)
    assert np.allclose(learner.score(few_examples["near"]), plain, atol=1e-4)


@pytest.mark.parametrize("preserved", [0, 1])
def test_something_is_preserved_and_something_free(preserved: float) -> None:
    with pytest.raises(UserError, match=r"method\.preserved: "):
        make_method("osf", {"preserved": preserved}, 0)


def test_what_it_cannot_split_is_refused(adapted: Adapted) -> None:
    method = make_method("osf", {}, 0)
    with pytest.raises(UserError, match=r"adapter\.kind: this method works with full, not lora\."):
        method.check(AdapterSettings())
    learner = adapted(kind="full")
    learner.model = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4)
    )
    with pytest.raises(UserError, match=r"PEFT's OSF finds none in this model"):
        method.adapt(learner, FIRST)
