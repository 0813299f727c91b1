"""Anchored fine-tuning: tokens weighed by the model's belief, and a divergence that holds it near the base.

Zhu et al. (2025), "Anchored Supervised Fine-Tuning", arXiv 2509.23753 (ASFT), the loss of `dft` and the
anchor of `kl`, as in the authors' code (train_v2.py, mode asft; equation 6 in summaries of the paper):

    Σ −sg[p_θ(y_t)] · log p_θ(y_t)  +  strength · Σ KL(p_base ‖ p_θ)    at each answer token

The divergence is over the vocabulary, and every answer token counts the same in it; the base is the model
without its adapters; both sums are divided by the number of answer tokens. Over several stages the base stays
the model before the first of them (ours: the paper has one).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from forgetmenot.methods.kl import KL
from forgetmenot.methods.shared.distillation import distil
from forgetmenot.methods.shared.method import Options
from forgetmenot.methods.shared.token_weights import confidence
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class ASFT(KL):
    """Weigh each answer token by its probability, and stay near the base's distributions (ASFT)."""

    name: ClassVar[str] = "asft"

    class Options(Options):
        """The settings of `asft`."""

        strength: NonNegativeFloat = 0.05
        """The weight of the divergence; 0 is `dft`. The default is that of the command in the authors'
        README; their code's own is 0.1."""
        power: NonNegativeFloat = 1.0
        """The power of the probability that weighs a token; 1 is the paper's, 0 is `kl`. Ours."""

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """Weighted negative log-likelihood and divergence, both summed."""
        from forgetmenot.engine.objectives import token_weighted_loss

        strength: float = self.options.strength
        weigh = partial(confidence, power=self.options.power)
        if not strength:
            return token_weighted_loss(learner, batch, weigh)
        answered, drift = distil(learner, self.base, batch, weigh=weigh)
        return answered + strength * drift
