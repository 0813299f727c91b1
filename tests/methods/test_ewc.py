"""Fisher information against autograd and logistic regression; the penalty against closed forms."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.ewc import EWC, diagonal_fisher
from forgetmenot.prompting import Encoded, TokenSequence

A = torch.tensor([[3.0, 1.0, 0.5], [1.0, 2.0, 0.2], [0.5, 0.2, 1.0]], dtype=torch.float64)
B = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_the_fisher_is_the_mean_square_of_each_examples_gradient(
    learner: Learner, examples: list[Encoded]
) -> None:
    """Also with shared prompts in a pack, and not the square of the mean."""
    found = diagonal_fisher(learner, examples)
    names = list(learner.trainable())
    expected = {name: torch.zeros_like(p) for name, p in learner.trainable().items()}
    for example in examples:
        tokens, start = torch.tensor(example.answer.tokens), example.answer.start
        log_probs = learner.model(input_ids=tokens[None]).logits[0].log_softmax(-1)
        likelihood = log_probs[torch.arange(start - 1, len(tokens) - 1), tokens[start:]].sum()
        gradients = torch.autograd.grad(likelihood, list(learner.trainable().values()))
        for name, g in zip(names, gradients, strict=True):
            expected[name] += g.square() / len(examples)
    difference = {name: found[name] - expected[name] for name in names}
    assert learner.norm(difference) < 1e-4 * learner.norm(expected)
    of_the_mean = {n: (g / len(examples)).square() for n, g in learner.gradient_of(examples).items()}
    assert learner.norm(of_the_mean) < 0.9 * learner.norm(expected)


class LogisticRegression:
    """Stands for a learner: p(1|x) = σ(w·x). An example's two tokens are its row and its answer."""

    def __init__(self, rows: Tensor, w: Tensor) -> None:
        self.rows, self.w = rows, w.requires_grad_()
        self.device = w.device

    def progress(self, *_: Any) -> Any:
        return nullcontext(lambda count: None)

    def trainable(self) -> dict[str, Tensor]:
        return {"w": self.w}

    def snapshot(self) -> dict[str, Tensor]:
        return {"w": self.w.detach().clone()}

    def gradient_of(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        numbers = [example.answer.tokens for example in examples]
        logits = self.rows[[row for row, _ in numbers]] @ self.w
        answers = torch.tensor([answer for _, answer in numbers], dtype=logits.dtype)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, answers, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, [self.w])
        return {"w": gradient}

    def sample(self, examples: Sequence[Encoded], seeds: Sequence[int]) -> list[TokenSequence]:
        rows = [example.answer.tokens[0] for example in examples]
        p = (self.rows[rows] @ self.w).sigmoid().tolist()
        drawn = [int(np.random.default_rng(seed).random() < one) for seed, one in zip(seeds, p, strict=True)]
        return [TokenSequence((row, one), 1) for row, one in zip(rows, drawn, strict=True)]


def test_the_sampled_fisher_is_that_of_logistic_regression() -> None:
    """F = mean σ(1 − σ) x², whatever the data's answers are; the empirical one goes by these."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    double: Any = LogisticRegression(rows, torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64))
    examples = [Encoded(str(k), (), TokenSequence((k, 1), 1), (k,), None, 0) for k in range(len(rows))]
    stage = Stage(1, ("t",), data={"t": examples})
    p = (rows @ double.w.detach()).sigmoid()[:, None]
    for fisher, expected in (("sampled", p * (1 - p)), ("empirical", (1 - p) ** 2)):
        method = make_method("ewc", {"fisher": fisher, "examples": 2000}, 0)
        assert isinstance(method, EWC)
        method.end(double, stage)
        exact = (expected * rows.square()).mean(0)
        assert torch.allclose(method.importance["w"], exact, rtol=0.15 if fisher == "sampled" else 1e-9)


def minimum(double: Any, method: EWC, center: Tensor) -> Tensor:
    """The minimum of ½ (w − c)ᵀ A (w − c) + penalty: one Newton step from anywhere, both being quadratic."""
    w = double.w
    loss = (w - center) @ A @ (w - center) / 2 + (method.penalty(double) or 0)
    (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, w, retain_graph=True)[0] for g in gradient])
    step: Tensor = torch.linalg.solve(hessian, gradient)
    return torch.sub(w, step).detach()


def after(method: EWC, double: Any, *tasks: tuple[list[float], list[float]]) -> None:
    """Let the method end one task after another: (diagonal Fisher information, optimum)."""
    for fisher, optimum in tasks:
        values = (torch.tensor(one, dtype=torch.float64) for one in (fisher, optimum))
        method._add(*({"w": one} for one in values))


ONE, TWO = ([2.0, 0.0, 0.1], [0.5, 0.5, 0.5]), ([1.0, 0.0, 3.0], [-1.0, 2.0, 4.0])


@pytest.mark.parametrize("strength", [0.7, 400.0, 1e9])
def test_the_penalised_optimum_of_a_quadratic_is_the_known_one(
    strength: float, weights: Callable[..., Any]
) -> None:
    """(A + λ Σ Fᵢ)⁻¹ (A c + λ Σ Fᵢ θᵢ): an anchor for each task, in two tensors."""
    method, double = EWC(EWC.Options(strength=strength)), weights([0.3, -0.1, 2.0])
    after(method, double, ONE, TWO)
    fishers, optima = torch.tensor([[ONE[0], TWO[0]], [ONE[1], TWO[1]]], dtype=torch.float64)
    left = A + strength * torch.diag(fishers.sum(0))
    expected = torch.linalg.solve(left, A @ B + strength * (fishers * optima).sum(0))
    assert torch.allclose(minimum(double, method, B), expected, rtol=1e-6)


def test_at_infinite_strength_what_is_needed_stays_and_the_rest_learns(weights: Callable[..., Any]) -> None:
    method, double = EWC(EWC.Options(strength=1e12)), weights([0.0, 0.0, 0.0])
    after(method, double, ONE)
    found = minimum(double, method, B)
    assert found[[0, 2]].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    free = B[1] - A[1, [0, 2]] @ (found - B)[[0, 2]] / A[1, 1]
    assert found[1].item() == pytest.approx(free.item())


def test_online_importance_fades_and_the_last_task_is_the_anchor(weights: Callable[..., Any]) -> None:
    method, double = EWC(EWC.Options(strength=2.0, gamma=0.25)), weights([1.0, 1.0, 1.0])
    after(method, double, ONE, TWO)
    squares = [0.25 * f + g for f, g in zip(ONE[0], TWO[0], strict=True)]
    expected = sum(f * (1.0 - anchor) ** 2 for f, anchor in zip(squares, TWO[1], strict=True))
    penalty = method.penalty(double)
    assert penalty is not None
    assert penalty.item() == pytest.approx(expected)


def test_per_token_the_gradient_is_that_of_the_mean_over_an_answers_tokens(
    learner: Learner, examples: list[Encoded]
) -> None:
    """Against plain backward passes through Transformers' own loss, which is that mean; so F of answers of
    any length is beside the loss as it trains."""
    longer = [
        replace(e, answer=TokenSequence(e.answer.tokens[:-1] * 2, e.answer.start)) for e in examples[:3]
    ]
    some = [*examples[:3], *longer]
    expected = {name: torch.zeros_like(p) for name, p in learner.trainable().items()}
    for example in some:
        tokens = torch.tensor([example.answer.tokens])
        labels = tokens.clone()
        labels[:, : example.answer.start] = -100
        loss = learner.model(input_ids=tokens, labels=labels).loss
        for name, gradient in zip(
            expected, torch.autograd.grad(loss, list(learner.trainable().values())), strict=True
        ):
            expected[name] += gradient.square() / len(some)
    found = diagonal_fisher(learner, some, per_token=True)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm(), name
    whole = diagonal_fisher(learner, examples[:1])
    length = len(examples[0].answer.tokens) - examples[0].answer.start
    assert length > 1
    for name, value in diagonal_fisher(learner, examples[:1], per_token=True).items():
        assert torch.allclose(value * length**2, whole[name], rtol=1e-5)
    method = EWC(EWC.Options(fisher="empirical", fisher_per="token"))
    method.end(learner, Stage(1, ("t",), data={"t": some}))
    assert all(torch.allclose(method.importance[name], value, rtol=1e-4) for name, value in found.items())


def test_what_is_drawn_follows_from_seed_and_stage_alone(learner: Learner, stage: Stage) -> None:
    def importance(stage: Stage, seed: int, noise: int) -> Tensor:
        torch.manual_seed(noise)
        method = EWC(EWC.Options(examples=4), seed)
        method.end(learner, stage)
        return torch.cat([value.flatten() for value in method.importance.values()])

    first = importance(stage, 5, 0)
    assert torch.equal(first, importance(stage, 5, 1))
    assert not torch.equal(first, importance(stage, 6, 0))
    assert not torch.equal(first, importance(replace(stage, number=2), 5, 0))


def test_without_strength_or_examples_no_gradient_is_taken(stage: Stage) -> None:
    for method, where in (
        (EWC(EWC.Options(strength=0)), stage),
        (EWC(), replace(stage, data={"size": []})),
    ):
        method.end(None, where)  # type: ignore[arg-type]
        assert method.state_dict() == {}


@pytest.mark.parametrize(
    "wrong", [{"strength": -1}, {"gamma": 1.5}, {"fisher": "true"}, {"examples": 0}, {"strength": "inf"}]
)
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}"):
        make_method("ewc", wrong, 0)
