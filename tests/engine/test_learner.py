"""The handle on the model: what it reads, and what it leaves as it was."""

import copy
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from forgetmenot.engine import gradients, readings
from forgetmenot.engine.laid_out import evaluating
from forgetmenot.engine.learner import Learner
from forgetmenot.prompting.encoded import Encoded, TokenSequence


def plain(model: Any, sequence: TokenSequence) -> float:
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([sequence.tokens])).logits[0].double().log_softmax(-1)
    return sum(
        float(log_probs[p - 1, sequence.tokens[p]]) for p in range(sequence.start, len(sequence.tokens))
    )


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_likelihoods_stand_in_the_order_given(learner: Learner, sequences: list[TokenSequence]) -> None:
    learner.budget = 40
    done: list[int] = []
    values = learner.log_likelihoods(sequences, done.append)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    assert values.tolist() == pytest.approx([plain(learner.model, s) for s in sequences], rel=1e-5)
    assert len(done) > 1
    assert sum(done) == len(sequences)


def test_scores_are_one_array_of_candidates_for_each_example(
    learner: Learner, examples: list[Encoded]
) -> None:
    text = Encoded("text-0", (), TokenSequence((5, 6, 1), 1), (), None, 0)
    scores = learner.score([examples[0], text, *examples[1:]])
    assert scores.pop(1).shape == (0,)
    for example, values in zip(examples, scores, strict=True):
        assert values.tolist() == pytest.approx(
            [plain(learner.model, candidate) for candidate in example.candidates], rel=1e-5
        )


def test_nothing_scores_nothing(learner: Learner) -> None:
    assert learner.score([]) == []
    assert learner.log_likelihoods([]).shape == (0,)


def test_counts_are_what_was_computed_and_what_sharing_saved(learner: Learner) -> None:
    prompt = (5, 6, 7, 8)
    candidates = [TokenSequence((*prompt, a, b), 4) for a, b in ((9, 9), (10, 9), (9, 11))]
    learner.log_likelihoods(candidates)
    assert learner.counts == {"computed": 4 + 2, "without_sharing": 3 * 5}
    learner.reset_counts()
    learner.log_likelihoods(candidates[:1])
    assert learner.counts == {"computed": 5, "without_sharing": 5}


def test_training_and_answering_have_their_own_layouts(learner: Learner) -> None:
    twins = [TokenSequence((5, 6, 7), 1)] * 2
    learner.layout, learner.training_layout = "trie", "blocks"
    learner.model.train()
    learner.forward(twins)
    assert learner.counts["computed"] == 4
    learner.log_likelihoods(twins)
    assert learner.counts["computed"] == 4 + 2


def test_other_weights_answer_and_the_present_ones_come_back(
    learner: Learner, sequences: list[TokenSequence]
) -> None:
    before = learner.snapshot()
    answers = learner.log_likelihoods(sequences)
    with torch.no_grad():
        for p in learner.model.parameters():
            p.mul_(1.1)
    after = weights(learner.model)
    assert not torch.equal(learner.log_likelihoods(sequences), answers)
    with learner.with_weights(before):
        assert torch.equal(learner.log_likelihoods(sequences), answers)
        assert equal(learner.snapshot(), before)
    assert equal(weights(learner.model), after)


@pytest.mark.parametrize(
    "broken",
    [
        lambda snapshot: {**snapshot, "no.such.weight": torch.zeros(1)},
        lambda snapshot: {**snapshot, list(snapshot)[-1]: torch.zeros(3, 3, 3)},
    ],
)
def test_a_snapshot_that_does_not_fit_changes_nothing(
    broken: Callable[[dict[str, Tensor]], dict[str, Tensor]], learner: Learner
) -> None:
    before = weights(learner.model)
    zeros = {name: torch.zeros_like(value) for name, value in before.items()}
    with pytest.raises((KeyError, RuntimeError)), learner.with_weights(broken(zeros)):
        pass
    assert equal(weights(learner.model), before)


def test_weights_come_back_after_an_error(learner: Learner) -> None:
    before = weights(learner.model)
    zeros = {name: torch.zeros_like(value) for name, value in before.items()}
    with pytest.raises(ZeroDivisionError), learner.with_weights(zeros):
        raise ZeroDivisionError
    assert equal(weights(learner.model), before)


def test_a_snapshot_is_a_copy_of_what_learns(llama: Any) -> None:
    torch.manual_seed(0)
    model = get_peft_model(llama, LoraConfig(target_modules=["q_proj"]))
    learner = Learner(model, tokenizer=None, budget=512)
    snapshot = learner.snapshot()
    assert snapshot.keys() == learner.trainable().keys()
    assert all("lora_" in name for name in snapshot)
    kept = copy.deepcopy(snapshot)
    with torch.no_grad():
        for p in learner.trainable().values():
            p.add_(1)
    assert equal(snapshot, kept)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode(training: bool, learner: Learner) -> None:
    learner.model.train(training)
    with evaluating(learner.model):
        assert not any(module.training for module in learner.model.modules())
        assert not torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), evaluating(learner.model):
        raise ZeroDivisionError
    assert all(module.training is training for module in learner.model.modules())
    assert torch.is_grad_enabled()


def test_whole_distributions_are_the_plain_ones(learner: Learner, sequences: list[TokenSequence]) -> None:
    for layout in ("trie", "padded"):
        learner.layout = layout
        with torch.no_grad():
            found = learner.log_probs(sequences)
            expected = [
                learner.model(input_ids=torch.tensor([s.tokens])).logits[0, s.start - 1 : -1].log_softmax(-1)
                for s in sequences
            ]
        assert torch.allclose(found, torch.cat(expected), atol=1e-5)


def test_hidden_states_are_those_of_the_last_token(learner: Learner, sequences: list[TokenSequence]) -> None:
    prompts = [s.tokens for s in sequences]
    learner.budget = 40
    for layout in ("trie", "padded"):
        learner.layout = layout
        for layer in (0, 1, -1):
            found = learner.hidden(prompts, layer)
            with torch.no_grad():
                plain = [
                    learner.model(input_ids=torch.tensor([p]), output_hidden_states=True).hidden_states[layer]
                    for p in prompts
                ]
            assert torch.allclose(found, torch.stack([states[0, -1] for states in plain]), atol=1e-5)


def test_a_gradient_is_that_of_the_answers_and_leaves_what_was_gathered(
    learner: Learner, examples: list[Encoded]
) -> None:
    model = learner.model.requires_grad_(True)
    learner.budget = 40
    gathered = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = gathered[name].clone()
    found = learner.gradient_of(examples)
    assert equal({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, gathered)
    for example in examples:
        tokens, start = example.answer.tokens, example.answer.start
        log_probs = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        torch.autograd.backward(-log_probs[torch.arange(start - 1, len(tokens) - 1), tokens[start:]].sum())
    expected = {n: p.grad - gathered[n] for n, p in model.named_parameters() if p.grad is not None}
    difference = {name: found[name] - expected[name] for name in expected}
    assert learner.norm(difference) < 1e-5 * learner.norm(expected)
    assert learner.dot(expected, expected) == pytest.approx(learner.norm(expected) ** 2)


ASKED: dict[str, Callable[[Learner, list[Encoded]], Any]] = {
    "log_likelihoods": lambda learner, examples: learner.log_likelihoods([e.answer for e in examples]),
    "greedy": lambda learner, examples: learner.log_likelihoods_and_greedy([e.answer for e in examples])[0],
    "states": lambda learner, examples: learner.states([e.answer for e in examples]),
    "gradient_of": lambda learner, examples: torch.cat(
        [value.flatten() for value in learner.gradient_of(examples).values()]
    ),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_methods_and_probes_ask_is_computed_in_smaller_packs_too(
    learner: Learner, examples: list[Encoded], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Before and after training as well: a reference, importances, measurements."""
    whole = ASKED[asked](learner, examples)
    told: list[str] = []
    learner.tell = told.append
    for room, name in product((gradients, readings), ("log_likelihoods", "hidden_states")):
        compute = getattr(room, name)

        def narrow(model: Any, packed: Any, *others: Any, compute: Any = compute, **named: Any) -> Any:
            if packed.nodes > 100:
                raise MemoryError
            return compute(model, packed, *others, **named)

        monkeypatch.setattr(room, name, narrow)
    torch.testing.assert_close(ASKED[asked](learner, examples), whole, rtol=1e-4, atol=1e-4)
    assert told
