"""Dynamic fine-tuning: each answer token counts for as much as the model already believes it.

Wu et al. (2025), "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward
Rectification", arXiv 2508.05629 (DFT), equation 9, with sg the value without its gradient:

    Σ −sg[p_θ(y_t | x, y_<t)] · log p_θ(y_t | x, y_<t)

Its gradient is that of −Σ p_θ: what the model thinks unlikely pulls little, where the plain likelihood pulls
hardest. The loss that a run logs, −p log p, rises until p = 1/e and then falls. The paper is about
generalization. By the README of its code the method is strong where there are many ways to write a solution,
and weaker where one given answer is right: such are labels.

Ours: `power`, which makes it stronger or weaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetmenot.methods.shared.method import Options
from forgetmenot.methods.shared.token_weights import TokenWeighted, confidence
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor


class DFT(TokenWeighted):
    """Weigh each answer token by its present probability (DFT)."""

    class Options(Options):
        """The settings of `dft`."""

        power: NonNegativeFloat = 1.0
        """The power of the probability that weighs a token; 1 is the paper's, 0 is `sequential`."""

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """Probabilities."""
        return confidence(found, self.options.power)
