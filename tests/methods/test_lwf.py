"""Distillation against SciPy, one sequence at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.lwf import LwF
from forgetmenot.methods.shared.distillation import distil, divergence, teach
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.written import FEW_WORDS

Plain = Callable[..., Any]


def likelihood(logits: Any, tokens: tuple[int, ...]) -> float:
    return float(sum(row[token] for row, token in zip(log_softmax(logits, -1), tokens, strict=True)))


def answer(example: Encoded) -> tuple[int, ...]:
    return example.answer.tokens[example.answer.start :]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_over_the_vocabulary_it_is_scipys(
    temperature: float,
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    plain: Plain,
) -> None:
    """Σ −log p + λ T² Σ KL(teacher ‖ student), from teacher to student and not the reverse."""
    method = LwF(LwF.Options(strength=0.7, temperature=temperature))
    method.begin(learner, stage)
    before = [plain(e.answer) / temperature for e in examples]
    shaken(0.2)
    after = [plain(e.answer) for e in examples]
    drift = sum(
        entropy(softmax(q, -1), softmax(p / temperature, -1), axis=-1).sum()
        for q, p in zip(before, after, strict=True)
    )
    nll = -sum(likelihood(p, answer(e)) for p, e in zip(after, examples, strict=True))
    loss = method.loss(learner, examples)
    assert loss.item() == pytest.approx(nll + 0.7 * temperature**2 * drift, rel=1e-5)
    reverse = sum(
        entropy(softmax(p / temperature, -1), softmax(q, -1), axis=-1).sum()
        for q, p in zip(before, after, strict=True)
    )
    assert abs(reverse - drift) > 1e-3 * drift


def test_over_labels_it_is_scipys(
    learner: Learner, stage: Stage, examples: list[Encoded], shaken: Callable[..., None], plain: Plain
) -> None:
    """Over each example's candidates, also where examples have different numbers of them."""
    examples = [replace(one, candidates=one.candidates[: 2 + k % 2]) for k, one in enumerate(examples)]

    def labels(example: Encoded) -> Any:
        scores = [likelihood(plain(c), c.tokens[c.start :]) for c in example.candidates]
        return softmax(np.array(scores) / 2)

    method = LwF(LwF.Options(strength=0.7, temperature=2.0, over="labels"))
    method.begin(learner, stage)
    before = [labels(e) for e in examples]
    shaken(0.2)
    drift = sum(entropy(q, labels(e)) for q, e in zip(before, examples, strict=True))
    nll = -sum(likelihood(plain(e.answer), answer(e)) for e in examples)
    assert method.loss(learner, examples).item() == pytest.approx(nll + 0.7 * 4 * drift, rel=1e-5)


def test_over_labels_no_pass_holds_more_than_a_pack_and_the_loss_is_that_of_all_at_once(
    learner: Learner, stage: Stage, examples: list[Encoded], shaken: Callable[..., None]
) -> None:
    """An example has many candidates, and the budget counts its answer alone."""
    method = LwF(LwF.Options(strength=0.7, over="labels"))
    method.begin(learner, stage)
    shaken(0.2)
    learner.model.train()
    parameters = learner.trainable()
    passes: list[int] = []
    learner.model.register_forward_pre_hook(
        lambda _, __, named: passes.append(named["input_ids"].numel()), with_kwargs=True
    )

    def run() -> tuple[float, list[torch.Tensor], list[int], int]:
        passes.clear()
        learner.reset_counts()
        loss = method.loss(learner, examples)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), list(gradients), [*passes], learner.counts["computed"]

    whole, wanted, once, counted = run()
    assert len(once) == 2  # teacher and student
    assert counted == sum(once)
    learner.budget = 40
    longest = max(len(c.tokens) for e in examples for c in e.candidates)
    value, gradients, cut, counted = run()
    assert max(cut) <= 2 * max(40, longest) < max(once)
    assert counted < sum(cut)  # what the backward pass computes again counts once, as everywhere
    assert value == pytest.approx(whole, rel=1e-5)
    for found, expected in zip(gradients, wanted, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-7


def test_the_gradient_of_the_divergence_is_student_minus_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    q, logits = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(q.log_softmax(-1), logits.log_softmax(-1)), logits)
    assert torch.allclose(gradient, logits.softmax(-1) - q.softmax(-1))


def test_a_teacher_teaches_in_packs_without_dropout_or_gradient_and_leaves_no_trace(
    learner: Learner, examples: list[Encoded], shaken: Callable[..., None]
) -> None:
    answers = [example.answer for example in examples]
    weights = learner.snapshot()
    learner.model.eval()
    with torch.no_grad():
        expected = learner.log_probs(answers)
    shaken()
    learner.model.train()
    now = learner.snapshot()
    learner.budget = 40
    assert len(learner.cut(answers)) > 1
    taught = teach(learner, weights, answers).log_probs()
    assert torch.allclose(taught, expected, atol=1e-5)
    assert not taught.requires_grad
    assert learner.model.training
    assert all(torch.equal(now[name], p) for name, p in learner.trainable().items())


def test_an_unchanged_model_has_nothing_to_distil(learner: Learner, examples: list[Encoded]) -> None:
    learner.model.train()
    answered, drift = distil(learner, learner.snapshot(), examples, 2.0)
    assert drift.item() == 0.0
    assert answered.item() == pytest.approx(-learner.forward([e.answer for e in examples]).sum().item())


def test_labels_are_for_tasks_that_have_some(learner: Learner, stage: Stage) -> None:
    free = replace(stage, data={"size": [replace(one, candidates=()) for one in stage.data["size"]]})
    with pytest.raises(UserError, match=r"method\.over: labels .* 'size' does not"):
        LwF(LwF.Options(over="labels")).begin(learner, free)


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"temperature": 0}, {"over": "all"}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}"):
        make_method("lwf", wrong, 0)


@pytest.mark.parametrize("name", ["lwf", "self-distillation"])
@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"per_stage": "new"}, {"per_stage": "merge"}, {}])
def test_the_teacher_begins_as_the_model_of_the_stage_before(
    name: str,
    adapter: dict[str, Any],
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    plain: Plain,
) -> None:
    """In the first stage as the base; KL(model of the stage before ‖ teacher) is 0 at every answer token."""
    settings = AdapterSettings.model_validate(adapter)
    method: Any = make_method(name, FEW_WORDS if name == "self-distillation" else {}, 0)
    method.check(settings)
    for number in (1, 2, 3):
        before = [softmax(plain(e.answer), -1) for e in examples]
        learner.model = adapt(learner.model, settings, number, seed=number)
        method.begin(learner, replace(stage, number=number))
        shaken(0.2)
        with learner.with_weights(method.teacher):
            taught = [softmax(plain(e.answer), -1) for e in examples]
        drifts = [entropy(p, q, axis=-1).max() for p, q in zip(before, taught, strict=True)]
        assert max(drifts) < 1e-6
        learner.model = finish_stage(learner.model, settings)


@pytest.mark.parametrize("name", ["lwf", "self-distillation"])
def test_a_soft_prompt_drawn_at_random_is_no_teacher(name: str) -> None:
    with pytest.raises(UserError, match=r"adapter\.kind: this method works with lora or full, not prompt"):
        make_method(name, {}, 0).check(AdapterSettings(kind="prompt"))
