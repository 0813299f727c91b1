"""The common base of distillation methods: a teacher with other weights, or with another prompt.

A teacher's outputs are computed for each batch. Stored once they would take (answer tokens × vocabulary)
numbers for each example; this costs one forward pass and a copy of what learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetmenot.prompting import Encoded, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q), summed over rows; in nats.

    Args:
        p: Log-probabilities [rows, outcomes].
        q: The same, of the distribution that is compared with it.
    """
    return (p.exp() * (p - q)).sum()


def tempered(log_probs: Tensor, temperature: float) -> Tensor:
    """The distribution of logits divided by a temperature: log-probabilities [rows, outcomes]."""
    return (log_probs / temperature).log_softmax(-1)


def teach(learner: Learner, weights: Snapshot, sequences: Sequence[TokenSequence]) -> Tensor:
    """What the model with other weights predicts, without dropout and gradients.

    Returns:
        Log-probabilities [predicted tokens, vocabulary], sequence after sequence.
    """
    import torch

    from forgetmenot.engine.learner import evaluating

    rows: dict[int, Tensor] = {}
    with learner.with_weights(weights), evaluating(learner.model):
        for indices in learner.cut(sequences):
            pack = [sequences[k] for k in indices]
            parts = torch.split(learner.log_probs(pack), [len(s.tokens) - s.start for s in pack])
            rows.update(zip(indices, parts, strict=True))
    return torch.cat([rows[k] for k in range(len(sequences))])


def distil(
    learner: Learner, teacher: Snapshot, batch: Sequence[Encoded], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The answers' negative log-likelihood, and KL(teacher ‖ model) over the vocabulary at their tokens.

    Args:
        learner: The model that learns.
        teacher: The weights to compare with.
        batch: Its answers are given to both.
        temperature: Of both distributions in the divergence.

    Returns:
        Two sums over answer tokens, with gradients.
    """
    import torch

    answers = [example.answer for example in batch]
    taught = teach(learner, teacher, answers)
    found = learner.log_probs(answers)
    targets = [token for answer in answers for token in answer.tokens[answer.start :]]
    answered = found.gather(1, torch.tensor(targets, device=found.device)[:, None]).sum()
    return -answered, divergence(tempered(taught, temperature), tempered(found, temperature))
