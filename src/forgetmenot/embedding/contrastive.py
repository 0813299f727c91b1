"""Contrastive tuning of sentence embeddings (Jiang et al. 2023, arXiv 2307.16645, section 3.2).

Of triples (h, h⁺, h⁻) of vectors of a premise, an entailed and a contradicted sentence, in a batch of N:

    ℓ_i = −log exp(cos(h_i, h_i⁺)/τ) / Σ_j (exp(cos(h_i, h_j⁺)/τ) + exp(cos(h_i, h_j⁻)/τ))

The paper says τ = 0.5; its code, which made the tables, has 0.05, as SimCSE. The loss needs all vectors of a
batch at once, and their activations do not fit: as in GradCache (Gao et al. 2021, arXiv 2101.06983) the
vectors are computed without gradients, the loss gives the gradient of each vector, and a second pass, pack by
pack, carries it on to the weights. The sum is the same as in one pass. Sentences are prepared as they are
where embeddings are asked for; the authors' code tunes on sentences as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.triples import Triple
from forgetmenot.embedding.vectors import prompts_of
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.settings import Names, PositiveFloat, PositiveInt, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner
    from forgetmenot.engine.training_state import Saves

PAPER = {
    "adapter.rank": 64,
    "adapter.alpha": 16,
    "training.learning_rate": 5e-4,
    "training.batch_size": 256,
    "training.schedule": "linear",
}
"""The paper's, as keys of a config. It warms up over 100 steps of some 1,075, has a dropout of .05, with
which packs cannot share what prompts begin with, and takes the checkpoint that is best on STS-B's dev split.
Here the warm-up is a tenth of the steps, there is no dropout, and the last step is taken."""
WARMUP = {"training.warmup_ratio": 0.1}

Prompts = tuple[int, ...]


class TuningSettings(Settings):
    """What contrastive tuning has beside a config's `adapter` and `training`."""

    sources: Annotated[Names, Field(min_length=1)] = ("mnli-dev",)
    """Where triples come from: `mnli` (its train split), `mnli-dev` (dev_matched), or a file with the columns
    of SimCSE's nli_for_simcse.csv."""
    temperature: PositiveFloat = 0.05
    """τ."""
    sentence_tokens: PositiveInt = 32
    """A sentence is cut to so many tokens before it is put into the prompt; the paper's."""


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The mean of ℓ_i over a batch of vectors [n, width] each, in nats."""
    import torch

    h, plus, minus = (torch.nn.functional.normalize(v, dim=1) for v in (anchors, positives, negatives))
    scores = h @ torch.cat([plus, minus]).T / temperature
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(h), device=h.device))


def encode(
    learner: Learner, triples: Sequence[Triple], settings: EmbeddingSettings, longest: int
) -> list[tuple[Prompts, Prompts, Prompts]]:
    """The prompts of triples whose sentences are cut to `longest` tokens."""
    tokens, tokenizer = tokens_of(learner.tokenizer), learner.tokenizer
    sides = []
    for texts in zip(*triples, strict=True):
        ids = [row[len(tokens.head) :] for row in tokens.plain(texts)]
        cut = [
            text if len(row) <= longest else tokenizer.decode(row[:longest])
            for text, row in zip(texts, ids, strict=True)
        ]
        sides.append(prompts_of(learner, cut, settings))
    return list(zip(*sides, strict=True))


def tune(
    learner: Learner,
    triples: Sequence[tuple[Prompts, Prompts, Prompts]],
    temperature: float,
    training: TrainingSettings,
    *,
    learning_rate: float,
    seed: int,
    on_step: Callable[[int, float], None],
    saves: Saves | None = None,
) -> None:
    """Train what learns in the learner's model, over permutations of the triples.

    What `saves` takes up is where an earlier process stopped: the steps before are not done again.

    Args:
        learner: With an adapter that learns.
        triples: As `encode` gives them. A last batch that is smaller than the others is left out, as its
            loss has fewer negatives, unless it is the only one.
        temperature: τ.
        training: Batch size, epochs, schedule, clipping, weight decay.
        learning_rate: The highest.
        seed: Of the order, and of dropout.
        on_step: Told each step's number and loss.
        saves: What keeps the state between steps.

    Raises:
        UserError: A loss is not finite.
    """
    import torch
    from transformers import get_scheduler

    from forgetmenot.engine.batches import Shuffled
    from forgetmenot.engine.precision import rounded_once
    from forgetmenot.engine.training import optimizer_of
    from forgetmenot.engine.training_state import TrainingState

    assert isinstance(training.epochs, int)
    size = min(training.batch_size, len(triples))
    steps = len(triples) // size * training.epochs
    optimizer = optimizer_of(learner, learning_rate, training.weight_decay)
    schedule = get_scheduler(
        "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        optimizer,
        num_warmup_steps=round(training.warmup_ratio * steps),
        num_training_steps=steps,
    )
    full = (b for b in Shuffled(len(triples), size, training.epochs, seed) if len(b) == size)
    state = TrainingState(learner, optimizer, schedule, steps)
    learner.model.train()
    if saves is not None:
        saves.take_up(state)
    stepping = saves.stepping() if saves is not None else nullcontext()
    with rounded_once(learner.model, learner.precision), stepping:
        for step, indices in islice(enumerate(full, 1), state.step, None):
            batch = [triples[k] for k in indices]
            loss = learner.within_memory(
                partial(backward, learner, batch, temperature, seed * 1_000_003 + step)
            )
            if not math.isfinite(loss):
                raise UserError(
                    f"tuning stopped at step {step} of {steps}, where the loss is {loss}. Set a lower "
                    "training.learning_rate, or training.precision: fp32."
                )
            torch.nn.utils.clip_grad_norm_(
                list(learner.trainable().values()), training.max_grad_norm or float("inf")
            )
            optimizer.step()
            schedule.step()
            on_step(step, loss)
            state.step = step
            if saves is not None:
                saves.stepped(state)
    learner.model.eval()


def backward(
    learner: Learner, batch: Sequence[tuple[Prompts, Prompts, Prompts]], temperature: float, seed: int
) -> float:
    """A batch's loss, with its gradients in the parameters' `.grad`.

    Both passes draw the same dropout: each pack has its own seed.
    """
    import torch

    prompts = [side[k] for k in range(3) for side in batch]
    sequences = [TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts]
    packs = learner.cut(sequences)

    def states_of(k: int) -> Tensor:
        torch.manual_seed((seed * 8191 + k) % 2**63)
        return learner.hidden_with_gradients([prompts[place] for place in packs[k]])

    for parameter in learner.trainable().values():
        parameter.grad = None
    order = torch.tensor([place for pack in packs for place in pack]).argsort()
    with torch.no_grad():
        vectors = torch.cat([states_of(k) for k in range(len(packs))])
    vectors.requires_grad_()
    anchors, positives, negatives = vectors[order].chunk(3)
    loss = info_nce(anchors, positives, negatives, temperature)
    (slopes,) = torch.autograd.grad(loss, vectors)
    for k, slope in enumerate(torch.split(slopes, [len(pack) for pack in packs])):
        torch.autograd.backward(states_of(k), slope)
    return loss.item()
