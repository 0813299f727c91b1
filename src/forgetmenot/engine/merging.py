"""Models whose adapters became part of their weights, held against what they answered before."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from forgetmenot.engine.precision import Precision
from forgetmenot.errors import UserError
from forgetmenot.prompting import TokenSequence

FP32_NATS, LOW_PRECISION_NATS = 0.01, 0.5
"""What rounding may change in an answer's log-likelihood; more is another model. Both are ours."""


class Scorer(Protocol):
    """What gives log-likelihoods of a model that can be replaced: a `Learner`."""

    model: Any
    precision: Precision

    def log_likelihoods(self, sequences: Sequence[TokenSequence], /) -> Tensor:
        """Of each sequence's predicted tokens, in nats: fp64 [sequences]."""

    def uncounted(self) -> AbstractContextManager[None]:
        """What is computed within is no work of the run."""


def merge(learner: Scorer, merged: Callable[[Any], Any], sample: Sequence[TokenSequence]) -> float:
    """Put a merged model in the learner's place; returns the largest difference in nats on a sample.

    Args:
        learner: What answers with the adapters beside the weights.
        merged: From its model to the merged one.
        sample: Sequences that both are asked.

    Raises:
        UserError: If the merged model answers otherwise.
    """
    with learner.uncounted():
        before = learner.log_likelihoods(sample)
        learner.model = merged(learner.model)
        return largest_difference(learner, sample, before)


def largest_difference(learner: Scorer, sample: Sequence[TokenSequence], before: Tensor) -> float:
    """How far a merged model's log-likelihoods lie from those before it was merged, at most, in nats.

    Args:
        learner: With the merged model.
        sample: Sequences.
        before: Their log-likelihoods: fp64 [sequences].

    Raises:
        UserError: If that is more than what rounding changes.
    """
    difference = float((learner.log_likelihoods(sample) - before).abs().max())
    exact = learner.precision == "fp32" and next(learner.model.parameters()).dtype == torch.float32
    allowed = FP32_NATS if exact else LOW_PRECISION_NATS
    if not difference <= allowed:  # nor where it is no number
        raise UserError(
            f"The merged model is another one than was trained: its log-likelihoods differ by up to "
            f"{difference:.3g} nats, and rounding explains {allowed:g}. Keep what was learned beside the "
            "weights (adapter.per_stage: continue, generation.backend: transformers), or take other targets."
        )
    return difference


def last_tokens(prompts: Sequence[tuple[int, ...]], predicted: int = 8) -> list[TokenSequence]:
    """Sequences to compare models on where there are only prompts: their last tokens are predicted."""
    return [TokenSequence(prompt, max(1, len(prompt) - predicted)) for prompt in prompts if len(prompt) > 1]
