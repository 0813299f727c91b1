"""Distillation over a large vocabulary: a few distributions at a time equal all of them at once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from forgetmenot.engine import head, ranks, shards
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import divisor
from forgetmenot.methods import Stage, derpp, make_method
from forgetmenot.prompting import Encoded
from tests.written import FEW_WORDS

AT_ONCE = 3  # rows of logits; with a teacher beside them half as many
METHODS: dict[str, dict[str, Any]] = {
    "kl": {"strength": 0.5},
    "asft": {"strength": 0.5},
    "dft": {},
    "eaft": {},
    "flow": {},
    "stm": {"threshold": 300.0},
    "lwf": {"strength": 0.5},
    "ema": {"strength": 0.5, "decay": 0.9},
    "self-distillation": {**FEW_WORDS, "max_new_tokens": 6},
    "der++": {"memory": 1.0, "logits": 4, "alpha": 0.3, "beta": 0.7},
}


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most rows over the vocabulary that any operation gives, backward passes included.

    The head's own weight has a row for each unit of its width when it is transposed; that is no distribution.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary, self.width, self.rows = vocabulary, width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_iter(found):
            if not isinstance(one, Tensor) or one.shape[-1:] != (self.vocabulary,):
                continue
            if one.shape[-2:-1] != (self.width,):
                self.rows = max(self.rows, one.numel() // self.vocabulary)
        return found


def started(name: str, learner: Learner, stage: Stage, shaken: Callable[..., None]) -> Any:
    """The method in a stage whose weights have moved; what it holds of the past is there."""
    method = make_method(name, METHODS[name], seed=0)
    if name == "der++":
        method.end(learner, stage)
    method.begin(learner, stage)
    shaken(0.1)
    return method


@pytest.mark.parametrize("adapter", ["full", "lora", "lora on the head"])
@pytest.mark.parametrize("name", METHODS)
def test_values_and_gradients_are_those_of_all_at_once_and_what_is_held_is_bounded(
    name: str,
    adapter: str,
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if adapter != "full":
        targets = ["q_proj", "lm_head"] if adapter == "lora on the head" else ["q_proj", "down_proj"]
        torch.manual_seed(0)
        learner.model = get_peft_model(
            learner.model, LoraConfig(target_modules=targets, r=2, init_lora_weights=False)
        )
    method = started(name, learner, stage, shaken)
    if name == "der++":
        examples = [*method.memory["size"][:6], *examples[:6]]
    parameters = learner.trainable()
    vocabulary, width = learner.model.config.vocab_size, learner.model.config.hidden_size
    own = learner.sample(examples, list(range(len(examples))))
    monkeypatch.setattr(learner, "sample", lambda *_: own)  # what writes them holds logits of its own

    def run() -> tuple[float, dict[str, Tensor], int]:
        with Largest(vocabulary, width) as largest:
            loss = method.loss(learner, examples)
            found = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), dict(zip(parameters, found, strict=True)), largest.rows

    value, gradients, rows = run()
    assert rows > 2 * AT_ONCE
    monkeypatch.setattr(head, "LOGITS_BYTES", 4 * vocabulary * AT_ONCE)
    chunked, in_chunks, few = run()
    assert 0 < few <= AT_ONCE
    assert chunked == pytest.approx(value, rel=1e-6)
    for key, gradient in gradients.items():
        assert (in_chunks[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, key


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_of_a_sharded_model_each_process_holds_as_few(
    tied: bool,
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Callable[..., None],
    in_processes: Callable[..., list[Any]],
    join_sharded: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processes have different numbers of chunks, and none waits for another."""
    if tied:
        learner.model.config.tie_word_embeddings = True
        learner.model.tie_weights()
    method = started("der++", learner, stage, shaken)
    batch = [*method.memory["size"][:6], *examples[:6]]
    vocabulary, width = learner.model.config.vocab_size, learner.model.config.hidden_size

    def run(batch: list[Encoded]) -> tuple[float, dict[str, Tensor], int]:
        with Largest(vocabulary, width) as largest:
            loss = method.loss(learner, batch)
            loss.backward()
        found = {name: shards.whole(p) for name, p in learner.gathered().items()}
        return loss.item(), found, largest.rows

    def sharded() -> Any:
        join_sharded()
        learner.model.zero_grad()
        learner.model = shards.shard(learner.model)
        monkeypatch.setattr(head, "LOGITS_BYTES", 4 * vocabulary * AT_ONCE)
        likeliest = derpp.likeliest(learner, batch[: 2 + ranks.rank()], 4)
        return *run(batch[:9] if ranks.rank() else batch[9:]), likeliest

    value, gradients, _ = run(batch)
    wanted = derpp.likeliest(learner, batch[:3], 4)
    both = in_processes(sharded)
    assert sum(one[0] for one in both) == pytest.approx(value, rel=1e-5)
    for _, found, rows, likeliest in both:
        assert 0 < rows <= AT_ONCE
        for key, gradient in gradients.items():
            assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, key
        for (words, values), (expected, then) in zip(likeliest, wanted, strict=False):
            assert torch.equal(words, expected)
            assert torch.allclose(values, then, atol=1e-5)


def test_a_teachers_head_is_its_own(
    learner: Learner, stage: Stage, examples: list[Encoded], shaken: Callable[..., None]
) -> None:
    """Asked after its weights have gone, in parts: in full fine-tuning the head has learned since."""
    answers = [example.answer for example in examples]
    before, weights = learner.log_probs(answers).detach(), learner.snapshot()
    shaken(0.2)
    now = learner.snapshot()
    with learner.with_weights(weights):
        taught = learner.predictions(answers, weights)
    assert torch.equal(taught.log_probs(), before)
    assert not taught.log_probs().requires_grad
    assert not torch.allclose(learner.log_probs(answers), before, atol=1e-2)
    assert all(torch.equal(now[name], p) for name, p in learner.trainable().items())


@pytest.mark.parametrize("name", [*METHODS, "labels"])
def test_a_mean_over_examples_weighs_each_by_its_tokens(
    name: str, learner: Learner, stage: Stage, examples: list[Encoded], shaken: Callable[..., None]
) -> None:
    """The loss of a batch is the sum of each example's alone, over the number of its answer's tokens."""
    labels = {"strength": 0.5, "over": "labels"}
    examples = [replace(e, answer=e.candidates[0]) if k % 2 else e for k, e in enumerate(examples)]
    stage = replace(stage, data={"size": examples})
    if name == "labels":
        method: Any = make_method("lwf", labels, seed=0)
        method.begin(learner, stage)
        shaken(0.1)
    else:
        method = started(name, learner, stage, shaken)
    if name == "der++":
        examples = [*method.memory["size"][:6], *examples[:6]]
    lengths = [len(e.answer.tokens) - e.answer.start for e in examples]
    assert len(set(lengths)) > 1
    alone = [method.loss(learner, [example]).item() for example in examples]
    assert method.loss(learner, examples).item() == pytest.approx(sum(alone), rel=1e-4)
    learner.loss_average = "example"
    expected = sum(one / length for one, length in zip(alone, lengths, strict=True))
    assert method.loss(learner, examples).item() == pytest.approx(expected, rel=1e-4)
    assert divisor(learner, examples) == len(examples)
