"""On-policy distillation against SciPy, one sequence at a time; its draws and its teacher."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.predictions import Predictions
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method, self_distillation
from forgetmenot.methods.self_distillation import SelfDistillation
from forgetmenot.methods.shared.distillation import teach
from forgetmenot.prompting import Encoded, TokenSequence


def test_it_is_the_reverse_divergence_from_the_demonstrated_teacher(
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    plain: Callable[..., Any],
) -> None:
    method = SelfDistillation(seed=3)
    method.begin(learner, stage)
    teacher = learner.snapshot()
    shaken()
    loss = method.loss(learner, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in learner.trainable().values())
    own = learner.sample(examples, [method._draw(example) for example in examples])
    expected = 0.0
    for example, one in zip(examples, own, strict=True):
        prompt, answer = one.tokens[: one.start], one.tokens[one.start :]
        assert prompt == example.prompt
        assert 1 <= len(answer) <= len(example.answer.tokens) - example.answer.start
        student = softmax(plain(one), -1)
        with learner.with_weights(teacher):
            shown = (*prompt, *example.answer.tokens[example.answer.start :], *prompt)
            taught = softmax(plain(TokenSequence(shown + answer, len(shown))), -1)
        expected += entropy(student, taught, axis=-1).sum()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_without_the_demonstration_there_is_nothing_to_learn(
    learner: Learner, stage: Stage, examples: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:

    def bare(learner: Learner, weights: Any, shown: Sequence[TokenSequence]) -> Predictions:
        cut = [len(example.answer.tokens) for example in examples]
        own = [TokenSequence(s.tokens[n:], s.start - n) for s, n in zip(shown, cut, strict=True)]
        return teach(learner, weights, own)

    method = SelfDistillation()
    method.begin(learner, stage)
    assert method.loss(learner, examples).item() > 0.01
    monkeypatch.setattr(self_distillation, "teach", bare)
    loss = method.loss(learner, examples)
    assert loss.item() == 0.0
    gradients = torch.autograd.grad(loss, list(learner.trainable().values()))
    assert max(g.abs().max().item() for g in gradients) < 1e-5


def test_the_teacher_is_the_moving_average(
    learner: Learner, stage: Stage, shaken: Callable[..., None]
) -> None:
    method = SelfDistillation(SelfDistillation.Options(rate=0.25))
    method.begin(learner, stage)
    expected = {name: value.double() for name, value in learner.snapshot().items()}
    for _ in range(3):
        shaken(0.5)
        method.stepped(learner)
        now = learner.snapshot()
        expected = {name: 0.75 * value + 0.25 * now[name].double() for name, value in expected.items()}
    for name, value in expected.items():
        assert torch.allclose(method.teacher[name].double(), value, atol=1e-6)


def test_an_answer_follows_from_its_example_seed_stage_and_step(
    learner: Learner, stage: Stage, examples: list[Encoded]
) -> None:
    """Not from the batch, its order, or what else was drawn."""

    def drawn(method: SelfDistillation, batch: Sequence[Encoded]) -> list[TokenSequence]:
        return learner.sample(batch, [method._draw(example) for example in batch])

    method = SelfDistillation(seed=1)
    method.begin(learner, stage)
    first = drawn(method, examples)
    torch.manual_seed(99)
    assert drawn(method, examples[::-1]) == first[::-1]
    assert drawn(method, examples[3:5]) == first[3:5]
    method.stepped(learner)
    assert drawn(method, examples) != first
    other = SelfDistillation(seed=2)
    other.begin(learner, stage)
    assert drawn(other, examples) != first


def test_what_cannot_be_demonstrated_is_said_before_training(learner: Learner, stage: Stage) -> None:
    method = SelfDistillation()
    text = replace(stage, data={"size": [replace(stage.data["size"][0], prompt=())]})
    with pytest.raises(UserError, match="'size' is plain text"):
        method.begin(learner, text)
    one = stage.data["size"][0]
    long = replace(one, answer=TokenSequence(one.answer.tokens * 10, one.answer.start))
    with pytest.raises(UserError, match=r"twice, which takes \d+ tokens, and the model has 128 positions"):
        method.begin(learner, replace(stage, data={"size": [long]}))


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": 1.1}, {"strength": 1}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}"):
        make_method("self-distillation", wrong, 0)
