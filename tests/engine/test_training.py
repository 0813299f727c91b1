"""The training loop against a padded loop written by hand, and against itself, cut in other ways."""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor

from forgetmenot.engine import training
from forgetmenot.engine.batches import Shuffled
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import batch_loss
from forgetmenot.engine.pack import Layout
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import Step, fit
from forgetmenot.prompting.encoded import Encoded

RATE = 1e-3
SEED = 3
CONSTANT = TrainingSettings(batch_size=8, schedule="constant", warmup_ratio=0)


@dataclass
class Answers:
    """The plain objective, and a memory of what the loop called."""

    first_gradients: dict[str, Tensor] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        self.calls.append("loss")
        self.sizes.append(len(batch))
        return -learner.forward([example.answer for example in batch]).sum()

    def penalty(self, learner: Learner) -> Tensor | None:
        self.calls.append("penalty")
        return None

    def gradients(self, learner: Learner) -> None:
        self.calls.append("gradients")
        if not self.first_gradients:
            self.first_gradients = {
                n: p.grad.clone() for n, p in learner.trainable().items() if p.grad is not None
            }

    def stepped(self, learner: Learner) -> None:
        self.calls.append("stepped")


@dataclass
class OfTheMethods(Answers):
    """The objective of methods that have no loss of their own."""

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        super().loss(learner, batch)
        return batch_loss(learner, batch)


@dataclass
class PulledToZero(Answers):
    """Adds half the squared norm of all weights: its gradient is the weights themselves."""

    def penalty(self, learner: Learner) -> Tensor | None:
        super().penalty(learner)
        return sum((p.square().sum() / 2 for p in learner.trainable().values()), torch.zeros(()))


@dataclass(frozen=True)
class Trained:
    objective: Answers
    steps: list[Step]
    weights: dict[str, Tensor]
    learner: Learner


def train(
    model: Any,
    examples: Sequence[Encoded],
    settings: TrainingSettings,
    *,
    epochs: int = 1,
    layout: Layout = "trie",
    objective: Answers | None = None,
    budget: int = 64,
    loss_average: Literal["token", "example"] = "token",
) -> Trained:
    """Train a copy of the model."""
    learner = Learner(
        copy.deepcopy(model),
        tokenizer=None,
        budget=budget,
        training_layout=layout,
        loss_average=loss_average,
    )
    objective = objective or Answers()
    steps: list[Step] = []
    fit(
        learner,
        examples,
        objective,
        settings,
        accelerator=Accelerator(cpu=True),
        epochs=epochs,
        learning_rate=RATE,
        seed=SEED,
        on_step=steps.append,
    )
    return Trained(objective, steps, {n: p.detach() for n, p in learner.trainable().items()}, learner)


def padded_loss(model: Any, batch: Sequence[Encoded]) -> Tensor:
    """Mean cross-entropy over the answers' tokens, the usual way: pad, mask, ignore with −100."""
    width = max(len(example.answer.tokens) for example in batch)
    tokens = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    mask = torch.zeros_like(tokens)
    for row, example in enumerate(batch):
        answer, n = example.answer, len(example.answer.tokens)
        tokens[row, :n] = torch.tensor(answer.tokens)
        labels[row, answer.start : n] = tokens[row, answer.start : n]
        mask[row, :n] = 1
    logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def cosine(step: int, steps: int, warmup: int) -> float:
    """The rate of a step, counted from 0, as a part of the peak."""
    if step < warmup:
        return step / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def relative(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference of a tensor as a part of the norm of all."""
    assert got.keys() == wanted.keys()
    norm = torch.cat([value.flatten() for value in wanted.values()]).norm()
    return max(float((got[name] - wanted[name]).norm() / norm) for name in wanted)


def change(model: Any, after: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: after[name] - p.detach() for name, p in model.named_parameters() if name in after}


def test_the_loop_equals_a_padded_one_written_by_hand(llama: Any, examples: list[Encoded]) -> None:
    settings = TrainingSettings(batch_size=8, warmup_ratio=0.2, weight_decay=0.1, max_grad_norm=0.5)
    trained = train(llama, examples, settings, epochs=2)

    model = copy.deepcopy(llama).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=RATE,
    )
    losses, norms = [], []
    batches = list(Shuffled(len(examples), 8, 2, SEED))
    assert [len(batch) for batch in batches] == [8, 8, 7] * 2
    for step, indices in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = RATE * cosine(step, 6, 1)
        optimizer.zero_grad()
        loss = padded_loss(model, [examples[k] for k in indices])
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        losses.append(loss.item())

    assert [step.loss for step in trained.steps] == pytest.approx(losses, rel=1e-5)
    assert [step.gradient_norm for step in trained.steps] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > 0.5, "clipping is at work"
    by_hand = {name: p.detach() for name, p in model.named_parameters()}
    assert max(float((trained.weights[name] - by_hand[name]).abs().max()) for name in by_hand) < 1e-5
    moved = change(llama, by_hand)
    assert min(float(value.abs().max()) for value in moved.values()) > 1e-3, "every weight has learned"


@pytest.mark.parametrize("micro_batch", [1, 3, "auto"])
@pytest.mark.parametrize("layout", ["trie", "blocks", "padded"])
def test_a_step_is_the_mean_over_its_tokens_however_it_is_cut(
    micro_batch: int | Literal["auto"], layout: Layout, llama: Any, examples: list[Encoded]
) -> None:
    whole = train(llama, examples, CONSTANT, budget=10_000)
    assert whole.objective.sizes == [8, 8, 7], "each step is one pack"
    model = copy.deepcopy(llama)
    first = next(iter(Shuffled(len(examples), 8, 1, SEED)))
    loss = padded_loss(model, [examples[k] for k in first])
    loss.backward()  # type: ignore[no-untyped-call]
    by_hand = {name: p.grad for name, p in model.named_parameters()}
    assert relative(whole.objective.first_gradients, by_hand) < 1e-6

    settings = CONSTANT.model_copy(update={"micro_batch": micro_batch})
    parts = train(llama, examples, settings, layout=layout)
    assert len(parts.objective.sizes) > 3
    assert max(parts.objective.sizes) <= (8 if micro_batch == "auto" else micro_batch)
    assert sum(parts.objective.sizes) == len(examples)
    assert relative(parts.objective.first_gradients, by_hand) < 1e-6
    assert [step.loss for step in parts.steps] == pytest.approx([step.loss for step in whole.steps], rel=1e-5)
    assert relative(change(llama, parts.weights), change(llama, whole.weights)) < 1e-3


@pytest.mark.parametrize("micro_batch", [1, 3, "auto"])
@pytest.mark.parametrize("layout", ["trie", "padded"])
def test_a_step_is_the_mean_over_examples_where_that_is_asked(
    micro_batch: int | Literal["auto"], layout: Layout, llama: Any, examples: list[Encoded]
) -> None:
    """By hand: Transformers' own mean over each example's tokens, and then over the examples of the batch."""
    model = copy.deepcopy(llama)
    first = next(iter(Shuffled(len(examples), 8, 1, SEED)))
    lengths = {len(examples[k].answer.tokens) - examples[k].answer.start for k in first}
    assert len(lengths) > 1
    loss = torch.stack([padded_loss(model, [examples[k]]) for k in first]).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    by_hand = {name: p.grad for name, p in model.named_parameters()}

    settings = CONSTANT.model_copy(update={"micro_batch": micro_batch})
    trained = train(
        llama, examples, settings, layout=layout, objective=OfTheMethods(), loss_average="example"
    )
    assert trained.steps[0].loss == pytest.approx(loss.item(), rel=1e-5)
    assert relative(trained.objective.first_gradients, by_hand) < 1e-6
    by_token = train(llama, examples, settings, layout=layout, objective=OfTheMethods())
    assert by_token.steps[0].loss != pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize("micro_batch", [1, "auto"])
def test_a_penalty_enters_once_per_step(
    micro_batch: int | Literal["auto"], llama: Any, examples: list[Encoded]
) -> None:
    settings = CONSTANT.model_copy(update={"micro_batch": micro_batch, "max_grad_norm": None})
    without = train(llama, examples, settings)
    objective = PulledToZero()
    pulled = train(llama, examples, settings, objective=objective)
    weights = {name: p.detach() for name, p in llama.named_parameters()}
    added = {
        name: g - without.objective.first_gradients[name] for name, g in objective.first_gradients.items()
    }
    assert relative(added, weights) < 1e-6
    half_norm = sum(float(p.square().sum()) / 2 for p in weights.values())
    assert pulled.steps[0].loss - without.steps[0].loss == pytest.approx(half_norm, rel=1e-5)
    assert objective.calls.count("penalty") == len(pulled.steps) == 3


def test_hooks_come_in_their_order(llama: Any, examples: list[Encoded]) -> None:
    settings = CONSTANT.model_copy(update={"micro_batch": 4, "batch_size": 16})
    calls = train(llama, examples, settings, budget=10_000).objective.calls
    after = ["penalty", "gradients", "stepped"]
    assert calls == ["loss"] * 4 + after + ["loss"] * 2 + after


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("cosine", [0, 1 / 2, *(cosine(s, 12, 2) for s in range(2, 12))]),
        ("linear", [0, 1 / 2, *((12 - s) / 10 for s in range(2, 12))]),
        ("constant", [0, 1 / 2, *([1.0] * 10)]),
    ],
)
def test_warm_up_and_schedule(
    schedule: Literal["cosine", "linear", "constant"],
    wanted: list[float],
    llama: Any,
    examples: list[Encoded],
) -> None:
    settings = TrainingSettings(batch_size=8, schedule=schedule, warmup_ratio=0.17)  # 2.04 of 12 steps
    steps = train(llama, examples, settings, epochs=4).steps
    assert [step.learning_rate / RATE for step in steps] == pytest.approx(wanted)
    assert [step.step for step in steps] == list(range(1, 13))
    assert {step.steps for step in steps} == {12}


def test_a_step_says_what_it_was(llama: Any, examples: list[Encoded]) -> None:
    steps = train(llama, examples, CONSTANT).steps
    for step, indices in zip(steps, Shuffled(len(examples), 8, 1, SEED), strict=True):
        answers = [examples[k].answer for k in indices]
        assert step.examples == len(indices)
        assert step.tokens == sum(len(answer.tokens) - answer.start for answer in answers)


def test_two_equal_runs_are_equal_to_the_last_bit(llama: Any, examples: list[Encoded]) -> None:
    model = get_peft_model(llama, LoraConfig(target_modules="all-linear", lora_dropout=0.2))
    settings = TrainingSettings(batch_size=8)
    a = train(model, examples, settings, epochs=2, layout="blocks")
    torch.rand(7)  # what others draw between the two changes nothing
    b = train(model, examples, settings, epochs=2, layout="blocks")
    assert a.steps == b.steps
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_the_loop_does_not_depend_on_the_order_of_a_batch(llama: Any, examples: list[Encoded]) -> None:
    """Packs are sorted, so batches of the same examples sum in the same order."""
    settings = CONSTANT.model_copy(update={"batch_size": len(examples)})
    a = train(llama, examples, settings)
    b = train(llama, examples[::-1], settings)
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_with_dropout_blocks_share_nothing_and_learn(llama: Any, examples: list[Encoded]) -> None:
    model = get_peft_model(
        llama, LoraConfig(target_modules="all-linear", lora_dropout=0.1, r=8, lora_alpha=32)
    )
    trained = train(model, examples, CONSTANT, epochs=8, layout="blocks")
    counts = trained.learner.counts
    assert counts["computed"] == counts["without_sharing"] > 0
    losses = [step.loss for step in trained.steps]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])

    learner = Learner(trained.learner.model, tokenizer=None, budget=512, training_layout="blocks")
    twins = [examples[0].answer] * 2
    learner.model.train()
    first, second = learner.forward(twins).tolist()
    assert first != second, "each has a mask of its own"
    learner.training_layout = "trie"
    first, second = learner.forward(twins).tolist()
    assert first == second, "which is why nothing may be shared"


@dataclass
class Halving(Answers):
    """Halves what learns after each step, by a copy or in a way that PyTorch does not count as a change."""

    counted: bool = True

    def stepped(self, learner: Learner) -> None:
        for p in learner.trainable().values():
            (p.detach() if self.counted else p.data).mul_(0.5)


def test_what_a_method_makes_of_the_weights_is_learned_from(llama: Any, examples: list[Encoded]) -> None:
    model = get_peft_model(llama, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    seen, truth = (
        train(model, examples, CONSTANT, objective=Halving(counted=counted)) for counted in (False, True)
    )
    assert [step.loss for step in seen.steps] == [step.loss for step in truth.steps]
    assert relative(seen.weights, truth.weights) == 0


@dataclass
class Replaced(Answers):
    """Counts, at each step, the layers that answer by another forward than PEFT's."""

    counts: list[int] = field(default_factory=list)

    def gradients(self, learner: Learner) -> None:
        super().gradients(learner)
        self.counts.append(sum("forward" in vars(part) for part in learner.model.modules()))


def test_where_activations_are_computed_again_nothing_is_held_that_need_not_be(
    llama: Any, examples: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second copy of the weights, and no freed memory."""
    given_back: list[bool] = []

    def noted() -> nullcontext[None]:
        given_back.append(True)
        return nullcontext()

    monkeypatch.setattr(training, "given_back_at_once", noted)
    model = get_peft_model(llama, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    found = []
    for again in (False, True):
        objective = Replaced()
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        found.append(train(model, examples, CONSTANT, objective=objective))
        assert all((count == 0) == again for count in objective.counts)
        assert objective.counts
        assert given_back == [True] * again
    assert relative(found[1].weights, found[0].weights) < 1e-4


def test_training_ends_in_evaluation_with_no_gradients_left(llama: Any, examples: list[Encoded]) -> None:
    model = train(llama, examples, CONSTANT).learner.model
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_frozen_weights_stay(llama: Any, examples: list[Encoded]) -> None:
    frozen = llama.model.layers[0]
    frozen.requires_grad_(False)
    before = {name: p.clone() for name, p in frozen.named_parameters()}
    after = train(llama, examples, CONSTANT).learner.model.model.layers[0]
    assert all(torch.equal(before[name], p) for name, p in after.named_parameters())


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    batches = list(Shuffled(count=23, batch_size=8, epochs=3, seed=0))
    assert [len(batch) for batch in batches] == [8, 8, 7] * 3
    drawn = iter([k for batch in batches for k in batch])
    epochs = [list(islice(drawn, 23)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, list(range(23))]}) == 4
    assert list(Shuffled(23, 8, 3, seed=0)) == batches
    assert list(Shuffled(23, 8, 3, seed=1)) != batches


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"warmup_ratio": 1.0},
        {"learning_rate": 0},
        {"schedule": "step"},
        {"lr": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingSettings(**wrong)
