"""EMA: the slow learner by hand, and the fast one's loss by SciPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

from forgetmenot.engine.learner import Learner
from forgetmenot.methods import Stage, make_method
from forgetmenot.prompting import Encoded


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_the_slow_learner_is_the_weighted_sum_of_all_the_fast_one_has_been(
    decay: float, weights: Callable[..., Any]
) -> None:
    draw = np.random.default_rng(0)
    path = draw.normal(size=(6, 4))
    learner, method = weights(path[0].tolist()), make_method("ema", {"decay": decay}, seed=0)
    method.begin(learner, Stage(1, ("one",)))
    for place in path[1:]:
        with torch.no_grad():
            learner.w.copy_(torch.from_numpy(place))
        method.stepped(learner)
    expected = decay**5 * path[0] + sum((1 - decay) * decay ** (5 - k) * path[k] for k in range(1, 6))
    assert method.state_dict()["slow.w"].numpy() == pytest.approx(expected, abs=1e-12)


def test_it_goes_on_over_the_stages(weights: Callable[..., Any]) -> None:
    learner, method = weights([1.0]), make_method("ema", {"decay": 0.5}, seed=0)
    for number, place in enumerate((3.0, 5.0), 1):
        method.begin(learner, Stage(number, ("one",)))
        with torch.no_grad():
            learner.w.fill_(place)
        method.stepped(learner)
        method.end(learner, Stage(number, ("one",), data={"one": []}))
    assert method.state_dict()["slow.w"].item() == pytest.approx((1 * 0.5 + 3 * 0.5) * 0.5 + 5 * 0.5)


def test_the_loss_holds_the_fast_one_to_the_slow_one(
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    plain: Callable[..., Any],
) -> None:
    """−Σ log p(y|x) + strength · Σ KL(p_slow ‖ p), by NumPy and SciPy from the model's own logits."""
    method = make_method("ema", {"decay": 0.7, "strength": 0.4}, seed=0)
    method.begin(learner, stage)
    shaken()
    method.stepped(learner)
    slow = {name: method.state_dict()[f"slow.{name}"] for name in learner.trainable()}
    with learner.with_weights(slow):
        before = [log_softmax(plain(one.answer), axis=-1) for one in examples]
    expected = 0.0
    for one, teacher in zip(examples, before, strict=True):
        student = log_softmax(plain(one.answer), axis=-1)
        told = one.answer.tokens[one.answer.start :]
        expected -= sum(student[k, token] for k, token in enumerate(told))
        expected += 0.4 * rel_entr(np.exp(teacher), np.exp(student)).sum()
    assert float(method.loss(learner, examples).detach()) == pytest.approx(expected, rel=1e-5)
