"""Selective token masking: what surprises the model before it learns is not learned.

Wu et al. (2025), "Mitigating Forgetting in LLM Fine-Tuning via Low-Perplexity Token Learning", arXiv
2501.14315 (STM), section 3. An answer token counts if its perplexity under the model before fine-tuning,
1 / p(y_t | x, y_<t), is at most `threshold`, and else for nothing:

    Σ −1[p_before(y_t)⁻¹ ≤ τ] · log p_θ(y_t | x, y_<t)

The paper has answers of many tokens, of which τ = 2.5 masks about a quarter. Where the answer is a label that
the model does not expect, it is the label that is masked, and little is left to learn: the run says how much,
and a stage of which nothing is left is an error.

Ours: in a sequence the model before fine-tuning is the one with which the stage begins; and a masked token is
still one of those that the sum is divided by, while the authors' code takes the mean over the tokens left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.token_weights import TokenWeighted, present_losses
from forgetmenot.prompting import Encoded
from forgetmenot.settings import Number

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class STM(TokenWeighted):
    """Leave out of the loss the answer tokens that surprise the model before it learns (STM)."""

    keeps = "nothing; while it trains, a mark for each answer token"
    # What learns must add nothing at first, or the model before is none that anybody had: soft prompts do.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `stm`."""

        threshold: Annotated[Number, Field(ge=1)] = 2.5
        """τ, the largest perplexity of a token that is learned. The paper's; a large one is `sequential`."""

    learned: dict[str, Tensor]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Mark the tokens that will be learned, and say how many will not."""
        import torch

        most = math.log(self.options.threshold)
        losses = present_losses(learner, stage)
        self.learned = {example: loss <= most for example, loss in losses.items()}
        marks = torch.cat(list(self.learned.values()))
        if not marks.any():
            raise UserError(
                f"stage {stage.name}: every answer token has a perplexity above method.threshold "
                f"({self.options.threshold:g}), so method stm leaves nothing to learn; the least is "
                f"{torch.cat(list(losses.values())).min().exp():.3g}. Set a higher threshold."
            )
        self.notes.append(
            f"{1 - marks.float().mean():.0%} of the answer tokens counted for nothing: their perplexity "
            f"before the stage was above {self.options.threshold:g} (method.threshold)."
        )

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """1 where a token is learned, else 0."""
        import torch

        return torch.cat([self.learned[example.id] for example in batch]).to(found)
