"""The training loop: one stage of AdamW over packed batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import get_scheduler

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.batches import Batches, Shuffled, chats_among
from forgetmenot.engine.free_memory import given_back_at_once
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import divisor, with_reference
from forgetmenot.engine.pack import positions
from forgetmenot.engine.precision import autocast
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training_state import Saves, TrainingState
from forgetmenot.errors import UserError
from forgetmenot.models.folding import learning_folded
from forgetmenot.models.rounded_lora import rounded_lora
from forgetmenot.prompting import Mix
from forgetmenot.prompting.encoded import Encoded

BETAS = (0.9, 0.999)


class DivergedError(UserError):
    """A loss or a gradient was no number; the weights are of no use."""


class Objective(Protocol):
    """What a method adds to a step; see `forgetmenot.methods.Method` for what each hook means."""

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor: ...  # noqa: D102
    def penalty(self, learner: Learner) -> Tensor | None: ...  # noqa: D102
    def gradients(self, learner: Learner) -> None: ...  # noqa: D102
    def stepped(self, learner: Learner) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Step:
    """What one optimizer step was.

    Attributes:
        loss: Mean negative log-likelihood, or what the method made of it, per answer token, in nats; with
            `loss_average: example` the mean of examples, each per token; of preferences, of pairs.
        gradient_norm: Before clipping.
        tokens: Answer tokens in the batch.
        rehearsed: How many of them are past examples'.
        examples: Examples in the batch.
    """

    step: int
    steps: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    rehearsed: int
    examples: int


def fit(
    learner: Learner,
    examples: Sequence[Encoded],
    objective: Objective,
    settings: TrainingSettings,
    *,
    accelerator: Any,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[Step], None],
    saves: Saves | None = None,
    batches: Batches | None = None,
) -> None:
    """Train the learner's model on examples: a fresh optimizer and schedule, over `epochs` permutations.

    Which examples come in which step `batches` may say instead. What `saves` takes up is where an earlier
    process stopped: the steps before are not done again.

    The loss is the mean over all answer tokens of the batch, over its examples (`loss_average`), or over its
    preferences, however it is cut into packs and dealt to processes; gradients are summed over these once,
    and then the penalty is added, once per step.

    Raises:
        DivergedError: If a loss or the norm of a gradient is not finite; the weights are then of no use.
    """
    model = learner.model
    past = examples.past if isinstance(examples, Mix) else range(0)
    examples = with_reference(learner, examples)
    if batches is None:
        batches = Shuffled(len(examples), settings.batch_size, epochs, seed, chats_among(examples))
    steps = len(batches)
    optimizer = optimizer_of(learner, learning_rate, settings.weight_decay)
    schedule = get_scheduler(
        "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        optimizer,
        num_warmup_steps=round(settings.warmup_ratio * steps),
        num_training_steps=steps,
    )
    state = TrainingState(learner, optimizer, schedule, steps)
    model.train()
    if saves is not None:
        saves.take_up(state)
    drawn = enumerate(batches, 1)
    lean = any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    with (
        given_back_at_once() if lean else nullcontext(),
        _lora(learner, lean=lean) as weights_changed,
        saves.stepping() if saves is not None else nullcontext(),
    ):
        for step, indices in islice(drawn, state.step, None):
            batch = [examples[k] for k in indices]
            loss = learner.within_memory(
                partial(_backward, learner, objective, batch, settings, (seed, step))
            )
            mean = loss.item()
            _require_finite("loss", mean, step, steps)
            objective.gradients(learner)
            norm = accelerator.clip_grad_norm_(
                learner.trainable().values(), settings.max_grad_norm or float("inf")
            )
            norm = float(shards.whole(norm))
            _require_finite("gradient's norm", norm, step, steps)
            rate = schedule.get_last_lr()[0]
            before = None if batches.moved is None else learner.snapshot()
            optimizer.step()
            weights_changed()
            schedule.step()
            optimizer.zero_grad()
            objective.stepped(learner)
            weights_changed()  # which a method of others may do through `.data`, uncounted as well
            if batches.moved is not None and before is not None:
                with torch.no_grad():
                    apart = {name: now - before[name] for name, now in learner.trainable().items()}
                    batches.moved.append(learner.norm(apart))
            tokens = [len(example.answer.tokens) - example.answer.start for example in batch]
            rehearsed = sum(n for k, n in zip(indices, tokens, strict=True) if k in past)
            on_step(Step(step, steps, mean, norm, rate, sum(tokens), rehearsed, len(batch)))
            state.step = step
            if saves is not None:
                saves.stepped(state)
    ranks.check_alike(learner.trainable().values())
    model.eval()


def _lora(learner: Learner, *, lean: bool) -> AbstractContextManager[Callable[[], None]]:
    """How LoRA layers compute in training; where memory is short, without a second copy of their weights."""
    if learner.precision == "bf16":
        return rounded_lora(learner.model)
    return nullcontext(lambda: None) if lean else learning_folded(learner.model)


def _backward(
    learner: Learner,
    objective: Objective,
    batch: Sequence[Encoded],
    settings: TrainingSettings,
    seeds: tuple[int, int],
) -> Tensor:
    """The loss of a step [], with its gradients in the parameters' `.grad`."""
    for parameter in learner.trainable().values():
        parameter.grad = None  # where the step did not fit into memory and begins again
    terms = divisor(learner, batch)
    parts = list(micro_batches(learner, batch, settings.micro_batch))
    loss = torch.zeros((), dtype=torch.float64, device=learner.device)  # read once: reading waits for it
    with autocast(learner.device, learner.precision):  # what it has rounded serves the whole step
        for turn in learner.turns([[example.answer for example in one] for one in parts]):
            # Only adapter dropout draws from the generator; a pack draws the same whoever computes it.
            torch.manual_seed(_seed(*seeds, turn.pack))
            part = objective.loss(learner, parts[turn.pack])
            part = part / terms if turn.counts else part * 0
            with torch.autocast(learner.device.type, enabled=False):
                torch.autograd.backward(part)
            loss += part.detach()
    ranks.sum_gradients(learner.trainable().values())
    loss = ranks.all_reduce(loss)
    penalty = objective.penalty(learner)
    if penalty is not None:
        torch.autograd.backward(penalty)
        loss += shards.whole(penalty.detach())
    return loss


def _require_finite(what: str, value: float, step: int, steps: int) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"training stopped at step {step} of {steps}, where the {what} is {value}. Set a lower "
            "training.learning_rate, or training.precision: fp32; if it is so from the first step on, look "
            "for values in the model's weights that are not finite."
        )


def training_positions(
    learner: Learner, examples: Sequence[Encoded], settings: TrainingSettings, *, epochs: int, seed: int
) -> dict[str, int]:
    """The input positions that `fit` would compute on one process, and how many one sequence at a time."""
    counts = {"computed": 0, "without_sharing": 0}
    for indices in Shuffled(len(examples), settings.batch_size, epochs, seed, chats_among(examples)):
        batch = [examples[k] for k in indices]
        for part in micro_batches(learner, batch, settings.micro_batch):
            learned = [s for one in part for s in (one.candidates if one.is_preference else (one.answer,))]
            sequences = learner.behind_prompt(learned)
            counts["computed"] += positions(sequences, learner.training_layout)
            counts["without_sharing"] += sum(len(sequence.tokens) - 1 for sequence in sequences)
    return counts


def micro_batches(
    learner: Learner, batch: Sequence[Encoded], micro_batch: int | Literal["auto"]
) -> Iterator[list[Encoded]]:
    """The batch in parts that go through the model at once: packs of the budget, or so many examples."""
    for indices in learner.cut([example.answer for example in batch], parts=ranks.world_size()):
        size = len(indices) if micro_batch == "auto" else micro_batch
        for begin in range(0, len(indices), size):
            yield [batch[k] for k in indices[begin : begin + size]]


def _seed(*numbers: int) -> int:
    """A seed that follows from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def optimizer_of(learner: Learner, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as is usual."""
    parameters = list(learner.trainable().values())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=BETAS, fused=True)
