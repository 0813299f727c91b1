"""Entropy-adaptive fine-tuning: a token counts little where the model is sure of its own prediction.

Diao et al. (2026), "Entropy-Adaptive Fine-Tuning: Resolving Confident Conflicts to Mitigate Forgetting",
arXiv 2601.02151 (EAFT), equations 2 and 3:

    Σ −H̃_t · log p_θ(y_t | x, y_<t),    H̃_t = H_t / ln K

with H_t the entropy of the K likeliest tokens, from 0 (sure) to ln K (any of them). To learn a token against
a firm belief takes large changes, which is what forgets; so the gradient is small where the belief is firm,
right or wrong. As in the authors' code the K probabilities are made to sum to 1, H̃ has no gradient, and a
power of it may be taken (their `alpha`). They divide by 3.0, which the paper gives as about ln 20; here it is
ln K itself, of the vocabulary's size where that is smaller than K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from forgetmenot.methods.shared.method import Options
from forgetmenot.methods.shared.token_weights import TokenWeighted
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.head import Read


class EAFT(TokenWeighted):
    """Weigh each answer token by the entropy of the model's prediction (EAFT)."""

    class Options(Options):
        """The settings of `eaft`."""

        power: NonNegativeFloat = 1.0
        """The power of the entropy that weighs a token; 1 is the paper's, 0 is `sequential`."""
        top: Annotated[PositiveInt, Field(ge=2)] = 20
        """How many of the likeliest tokens the entropy is of: the paper's K."""

    def read(self) -> Read:
        """The log-probability, and the entropy as a share of its maximum."""
        from forgetmenot.engine.head import picked_and_entropy

        return partial(picked_and_entropy, top=self.options.top)

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """Entropies."""
        weights: Tensor = found[:, 1] ** self.options.power
        return weights
