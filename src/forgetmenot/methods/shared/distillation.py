"""The common base of distillation methods: a teacher with other weights, or with another prompt.

A teacher's outputs are computed for each batch. Stored once they would take (answer tokens × vocabulary)
numbers for each example; this costs one forward pass and a copy of what learns. Distributions are compared
a chunk of rows at a time (`forgetmenot.engine.predictions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from forgetmenot.prompting import Encoded, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot
    from forgetmenot.engine.predictions import Predictions


def divergence(p: Tensor, q: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q), summed over rows; in nats.

    Args:
        p: Log-probabilities [rows, outcomes].
        q: The same, of the distribution that is compared with it.
        weights: What each row counts [rows]; 1 by default.
    """
    rows = (p.exp() * (p - q)).sum(-1)
    return (rows if weights is None else rows * weights).sum()


def likeliest_divergence(p: Tensor, q: Tensor, weights: Tensor, count: int, *, both: bool) -> Tensor:
    """KL(p ‖ q) over the tokens that are likeliest under p alone, summed over rows; in nats.

    p is made to sum to 1 over them. With as many as there are outcomes it is `divergence`.

    Args:
        p: Log-probabilities [rows, outcomes].
        q: The same, of the distribution that is compared with it.
        weights: What each row counts [rows].
        count: How many tokens.
        both: Whether q is made to sum to 1 over them too; else what q has elsewhere counts as lost.
    """
    likeliest = p.topk(min(count, p.shape[-1]), dim=-1).indices
    p, q = p.gather(-1, likeliest), q.gather(-1, likeliest)
    return divergence(p.log_softmax(-1), q.log_softmax(-1) if both else q, weights)


def row_weights(learner: Learner, batch: Sequence[Encoded], sequences: Sequence[TokenSequence]) -> Tensor:
    """Each example's weight in the loss, for each predicted token of its sequence [predicted]."""
    import torch

    from forgetmenot.engine.objectives import weights

    counts = torch.tensor([len(s.tokens) - s.start for s in sequences], device=learner.device)
    return weights(learner, batch).repeat_interleave(counts)


def tempered(log_probs: Tensor, temperature: float) -> Tensor:
    """The distribution of logits divided by a temperature: log-probabilities [rows, outcomes]."""
    return (log_probs / temperature).log_softmax(-1)


def teach(learner: Learner, weights: Snapshot, sequences: Sequence[TokenSequence]) -> Predictions:
    """What the model with other weights predicts, without dropout and gradients: sequence after sequence."""
    import torch

    from forgetmenot.engine.laid_out import evaluating

    rows: dict[int, Tensor] = {}
    with learner.with_weights(weights), evaluating(learner.model):
        for indices in learner.cut(sequences):
            pack = [sequences[k] for k in indices]
            found = learner.predictions(pack, weights)
            parts = torch.split(found.states, [len(s.tokens) - s.start for s in pack])
            rows.update(zip(indices, parts, strict=True))
    return replace(found, states=torch.cat([rows[k] for k in range(len(sequences))]))


def distil(
    learner: Learner,
    teacher: Snapshot,
    batch: Sequence[Encoded],
    temperature: float = 1.0,
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The answers' negative log-likelihood, and KL(teacher ‖ model) over the vocabulary at their tokens.

    Args:
        learner: The model that learns.
        teacher: The weights to compare with.
        batch: Its answers are given to both.
        temperature: Of both distributions in the divergence.
        weigh: From the answer tokens' log-probabilities to what each one's likelihood counts, without
            gradient [predicted]; 1 by default. In the divergence all count the same.

    Returns:
        Two sums over answer tokens, each example's times its weight, with gradients.
    """
    import torch

    from forgetmenot.engine.predictions import summed

    def both(taught: Tensor, found: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        drift = divergence(tempered(taught, temperature), tempered(found, temperature), weights)
        log_probs = found.gather(1, targets[:, None])[:, 0]
        counted = weights if weigh is None else weights * weigh(log_probs.detach())
        return torch.stack([-(log_probs * counted).sum(), drift])

    answers = [example.answer for example in batch]
    taught, found = teach(learner, teacher, answers), learner.predictions(answers)
    targets = torch.tensor([t for one in answers for t in one.tokens[one.start :]], device=learner.device)
    answered, drift = summed(both, (taught, found), targets, row_weights(learner, batch, answers))
    return answered, drift
