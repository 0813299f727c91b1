"""DER++: its loss against one computed by hand, and its memory of logits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import METHODS, Stage, make_method
from forgetmenot.methods.derpp import DarkExperienceReplay
from forgetmenot.prompting import Encoded
from forgetmenot.runs.method_state import load_method_state, save_method_state

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]
KEPT = 5


def log_probs(learner: Learner, example: Encoded) -> Tensor:
    """The distribution at each answer token, one sequence at a time [tokens, vocabulary]."""
    start = example.answer.start
    logits = learner.model(input_ids=torch.tensor([example.answer.tokens])).logits[0, start - 1 : -1]
    return logits.log_softmax(-1)  # type: ignore[no-any-return]


def move(learner: Learner) -> None:
    """Change what learns, so that the model answers otherwise than it did."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in learner.trainable().values():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))


@pytest.fixture
def learner(adapted: Adapted) -> Learner:
    return adapted()


def after_near(learner: Learner, few: Few, folder: Path, **options: Any) -> DarkExperienceReplay:
    """The method after a stage on `near` of which it remembers all, its state taken through the disk."""
    options = {"memory": 1.0, "share": 0.5, "logits": KEPT, **options}
    method = make_method("der++", options, seed=3)
    method.end(learner, Stage(1, ("near",), data={"near": few["near"]}))
    save_method_state(method, folder)
    method = make_method("der++", options, seed=3)
    load_method_state(method, folder)
    assert isinstance(method, DarkExperienceReplay)
    return method


def test_logits_are_those_of_the_likeliest_tokens_at_the_end_of_the_stage(
    learner: Learner, few_examples: Few, tmp_path: Path
) -> None:
    method = after_near(learner, few_examples, tmp_path)
    assert len(method.memory["near"]) == 12
    for example, (words, values) in zip(method.memory["near"], method.logits["near"], strict=True):
        with torch.no_grad():
            expected = log_probs(learner, example).topk(KEPT)
        assert torch.equal(words, expected.indices.int())
        assert torch.allclose(values, expected.values, atol=1e-5)


def test_the_loss_is_the_papers(learner: Learner, few_examples: Few, tmp_path: Path) -> None:
    """New answers' NLL, β times past answers' NLL, α times the squared distance of the kept logits."""
    alpha, beta = 0.3, 0.7
    method = after_near(learner, few_examples, tmp_path, alpha=alpha, beta=beta)
    then = {}
    with torch.no_grad():
        for example in method.memory["near"]:
            then[example.id] = log_probs(learner, example).topk(KEPT)
    move(learner)
    stage = Stage(2, ("far",), data={"far": few_examples["far"]})
    batch = [*method.examples(learner, stage)][6:18]
    method.begin(learner, stage)
    expected = torch.zeros(())
    for example in batch:
        now = log_probs(learner, example)
        targets = torch.tensor(example.answer.tokens[example.answer.start :])
        nll = torch.nn.functional.nll_loss(now, targets, reduction="sum")
        if example.id in then:
            words, values = then[example.id].indices, then[example.id].values
            per_token = torch.nn.functional.mse_loss(now.gather(1, words), values, reduction="none").mean(1)
            expected = expected + beta * nll + alpha * per_token.sum()
        else:
            expected = expected + nll
    assert {e.id.split("-")[0] for e in batch} == {"5", "80"}  # new and past ones
    loss = method.loss(learner, batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    parameters = list(learner.trainable().values())
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_past_example_that_is_answered_as_then_has_no_distance(
    learner: Learner, few_examples: Few, tmp_path: Path
) -> None:
    method = after_near(learner, few_examples, tmp_path, alpha=100, beta=0)
    method.begin(learner, Stage(2, ("far",)))
    assert float(method.loss(learner, method.memory["near"])) == pytest.approx(0, abs=1e-6)
    move(learner)
    assert float(method.loss(learner, method.memory["near"])) > 1


def test_new_examples_alone_are_the_plain_loss_to_the_bit(
    learner: Learner, few_examples: Few, tmp_path: Path
) -> None:
    method = after_near(learner, few_examples, tmp_path)
    method.begin(learner, Stage(2, ("far",)))
    plain = METHODS["sequential"]()
    assert torch.equal(method.loss(learner, few_examples["far"]), plain.loss(learner, few_examples["far"]))


def test_state_is_plain_and_of_the_size_that_was_asked(
    learner: Learner, few_examples: Few, tmp_path: Path
) -> None:
    state = after_near(learner, few_examples, tmp_path).state_dict()
    tokens = sum(len(e.answer.tokens) - e.answer.start for e in few_examples["near"])
    assert state["words.near"].shape == state["values.near"].shape == (tokens, KEPT)
    json.dumps({name: value for name, value in state.items() if not isinstance(value, Tensor)})


@pytest.mark.parametrize("option", ["alpha", "beta", "logits"])
def test_options_are_checked(option: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.{option}: .*greater"):
        make_method("der++", {option: -1}, 0)
