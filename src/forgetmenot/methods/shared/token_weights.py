"""The common base of methods in which each answer token counts for more or less than one.

    Σ −w_t log p_θ(y_t | x, y_<t),    w without gradient

The sum is divided by all answer tokens, as for every method, whatever they weigh; AdamW hardly sees a factor
that all tokens share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.prompting import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.head import Read
    from forgetmenot.engine.learner import Learner

AT_ONCE = 512  # examples whose losses are asked for between two signs of progress; ours


class TokenWeighted(Method):
    """Fine-tuning on weighted tokens: a method says what is read of each, and what it weighs by that."""

    weighs = True

    def read(self) -> Read:
        """What is read of each answer token; the default is its log-probability."""
        from forgetmenot.engine.head import picked

        return picked

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """What each answer token weighs [predicted].

        Args:
            batch: The examples.
            found: What is read of each token, example after example [predicted, …]; without gradients.
        """
        raise NotImplementedError

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The weighted negative log-likelihood, summed."""
        from forgetmenot.engine.objectives import token_weighted_loss

        return token_weighted_loss(learner, batch, partial(self.token_weights, batch), self.read())


def confidence(log_probs: Tensor, power: float) -> Tensor:
    """The tokens' probabilities to a power, as weights [predicted]."""
    return (power * log_probs).exp()


def present_losses(learner: Learner, stage: Stage) -> dict[str, Tensor]:
    """What each answer token of the stage costs the model as it is: −log p in nats, by example [tokens]."""
    import torch

    found: dict[str, Tensor] = {}
    for task, examples in stage.data.items():
        with learner.progress(f"present losses of {task}", len(examples)) as advance:
            for begin in range(0, len(examples), AT_ONCE):
                some = examples[begin : begin + AT_ONCE]
                answers = [example.answer for example in some]
                losses = -learner.token_log_likelihoods(answers)
                parts = torch.split(losses, [len(s.tokens) - s.start for s in answers])
                found |= zip((example.id for example in some), parts, strict=True)
                advance(len(some))
    return found
