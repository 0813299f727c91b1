"""Upweighting easy samples: an example counts the less, the more it costs the model before it learns.

Sanyal et al. (2025), "Upweighting Easy Samples in Fine-Tuning Mitigates Forgetting", arXiv 2502.02797 (FLOW),
algorithm 1: with f_i an example's loss, and θ* the model before fine-tuning,

    Σ_i w_i f_i(θ),    w_i = exp(−f_i(θ*) / τ),    τ = the median of the f_i(θ*)

The weights are found once. As in the authors' code for language models an example's loss in its weight is the
mean over its answer's tokens, and weighted losses are divided by the number of tokens, not of weights: the
paper shows that a common factor does not matter. That code can also weigh token by token; which of the two
the paper's tables are from we could not find out, and take the algorithm's.

Ours: in a sequence θ* is the model with which the stage begins, and τ the median of the stage's examples
times `temperature`. Where answers are labels, the weights follow the model's liking for one of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.token_weights import TokenWeighted, present_losses
from forgetmenot.prompting import Encoded
from forgetmenot.settings import PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

LEAST = 1e-30  # nats: where most examples cost nothing, those that cost something count for nothing


class Flow(TokenWeighted):
    """Weigh each example by how little it costs the model before it learns (FLOW)."""

    keeps = "nothing; while it trains, a number for each example"
    # As for `stm`: a soft prompt drawn at random is no model that anybody had.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `flow`."""

        temperature: PositiveFloat = 1.0
        """The temperature τ as a multiple of the median; 1 is the paper's, a large one is `sequential`."""

    weights: dict[str, float]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Find the weights."""
        losses = {example: loss.mean().item() for example, loss in present_losses(learner, stage).items()}
        tau = max(self.options.temperature * statistics.median(losses.values() or [0.0]), LEAST)
        self.weights = {example: math.exp(-loss / tau) for example, loss in losses.items()}

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """Each example's weight, for each token of its answer."""
        counts = [len(example.answer.tokens) - example.answer.start for example in batch]
        terms = found.new_tensor(counts).long()
        return found.new_tensor([self.weights[example.id] for example in batch]).repeat_interleave(terms)
