"""The path integral and the importances against a path walked by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.si import SI

A = np.array([[3.0, 1.0], [1.0, 2.0]])
OPTIMA = [np.array([1.0, -1.0]), np.array([-0.5, 2.0])]
RATE, STEPS, CLIP, C, XI = 0.05, 30, 1.5, 0.4, 0.01


def learn(method: SI, double: Any, number: int) -> None:
    """A stage on ½ (w − b)ᵀ A (w − b) by clipped gradient descent, its hooks called as `fit` calls them."""
    stage = Stage(number, ("t",))
    a, b = torch.tensor(A), torch.tensor(OPTIMA[number - 1])
    optimizer = torch.optim.SGD([double.w], lr=RATE)
    method.begin(double, stage)
    for _ in range(STEPS):
        ((double.w - b) @ a @ (double.w - b) / 2).backward()
        penalty = method.penalty(double)
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
        method.gradients(double)
        torch.nn.utils.clip_grad_norm_([double.w], CLIP)
        optimizer.step()
        optimizer.zero_grad()
        method.stepped(double)
    method.end(double, stage)


def test_two_stages_walked_by_hand(weights: Callable[..., Any]) -> None:
    """The loss's gradient alone goes into the path, unclipped; the step is the one that was made."""
    method, double = SI(SI.Options(strength=C, damping=XI)), weights([2.0, 2.0])
    w, importance, anchor = np.array([2.0, 2.0]), np.zeros(2), np.zeros(2)
    for number, b in enumerate(OPTIMA, start=1):
        learn(method, double, number)
        start, path = w.copy(), np.zeros(2)
        for _ in range(STEPS):
            gradient = A @ (w - b)
            whole = gradient + 2 * C * importance * (w - anchor)
            step = -RATE * whole * min(1.0, CLIP / (np.linalg.norm(whole) + 1e-6))
            path -= gradient * step
            w = w + step
        importance = np.maximum(0, importance + path / ((w - start) ** 2 + XI))
        anchor = w
        assert double.w.tolist() == pytest.approx(w, rel=1e-9)
        assert method.importance["w"].tolist() == pytest.approx(importance, rel=1e-9)
        assert method.anchor["w"].tolist() == pytest.approx(anchor, rel=1e-9)


def test_the_path_sums_to_the_fall_of_the_loss(weights: Callable[..., Any]) -> None:
    """Σₖ ωₖ → L(start) − L(end) as steps become small; eq. 3 of the paper."""
    method, double = SI(SI.Options(damping=XI)), weights([1.2, -0.8])
    learn(method, double, 1)

    def loss(w: Any) -> float:
        return float((w - OPTIMA[0]) @ A @ (w - OPTIMA[0]) / 2)

    fall = loss(np.array([1.2, -0.8])) - loss(double.w.detach().numpy())
    assert method.path["w"].sum().item() == pytest.approx(fall, rel=0.15)


def test_the_loop_shows_the_losss_own_gradient(learner: Learner, stage: Stage) -> None:
    """One step of the real loop, with a penalty that outweighs the loss and is clipped."""
    (examples,) = stage.data.values()
    method = SI(SI.Options(strength=1.0))
    method.importance = {name: torch.full_like(p, 50.0) for name, p in learner.trainable().items()}
    method.anchor = {name: torch.ones_like(p) for name, p in learner.trainable().items()}
    method.begin(learner, stage)
    tokens = sum(len(e.answer.tokens) - e.answer.start for e in examples)
    gradient = learner.gradient_of(examples)
    fit(
        learner,
        examples,
        method,
        TrainingSettings(batch_size=len(examples), schedule="constant", warmup_ratio=0, max_grad_norm=0.1),
        accelerator=Accelerator(cpu=True),
        epochs=1,
        learning_rate=1e-3,
        seed=0,
        on_step=lambda step: None,
    )
    for name, p in learner.trainable().items():
        expected = -gradient[name] / tokens * (p.detach() - method.began_at[name])
        assert torch.allclose(method.path[name], expected, rtol=1e-3, atol=1e-9)
        assert method.path[name].abs().sum() > 0


def test_importance_is_never_negative(weights: Callable[..., Any]) -> None:
    method, double = SI(), weights([0.0])
    stage = Stage(1, ("t",))
    method.begin(double, stage)
    double.w.grad = torch.ones_like(double.w)
    method.penalty(double)
    with torch.no_grad():
        double.w += 1.0  # uphill
    method.stepped(double)
    method.end(double, stage)
    assert method.path["w"].item() == -1.0
    assert method.importance["w"].item() == 0.0


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"damping": 0}, {"xi": 1}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}"):
        make_method("si", wrong, 0)
