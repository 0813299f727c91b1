"""Selective token masking: what surprises the model before it learns is not learned.

Wu et al. (2025), "Mitigating Forgetting in LLM Fine-Tuning via Low-Perplexity Token Learning", arXiv
2501.14315 (STM), section 3. An answer token counts if its perplexity under the model before fine-tuning,
1 / p(y_t | x, y_<t), is at most `threshold`, and else for nothing:

    Σ −1[p_before(y_t)⁻¹ ≤ τ] · log p_θ(y_t | x, y_<t)

The paper has answers of many tokens, of which τ = 2.5 masks about a quarter (table 3). Where the answer is a
label, a small model may expect none of its tokens as much as that: the run says how much is masked, and a
stage of which nothing is left is an error. `share` masks a quarter, or another part, whatever it expects.

Ours: in a sequence the model before fine-tuning is the one with which the stage begins; and a masked token is
still one of those that the sum is divided by, while the authors' code takes the mean over the tokens left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.token_weights import TokenWeighted, present_losses
from forgetmenot.prompting import Encoded
from forgetmenot.settings import Number

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


THRESHOLD = 2.5


class STM(TokenWeighted):
    """Leave out of the loss the answer tokens that surprise the model before it learns (STM)."""

    keeps = "nothing; while it trains, a mark for each answer token"
    # What learns must add nothing at first, or the model before is none that anybody had: soft prompts do.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `stm`."""

        threshold: Annotated[Number, Field(ge=1)] = THRESHOLD
        """τ, the largest perplexity of a token that is learned. The paper's; a large one is `sequential`."""
        share: Annotated[Number, Field(ge=0, lt=1)] | None = None
        """In its place, the part of the stage's answer tokens that is masked, those of the highest perplexity
        (as the paper's section 5.1 does with 0.25); 0 is `sequential`."""

        @model_validator(mode="after")
        def _one_of_them(self) -> Self:
            if self.share is not None and self.threshold != THRESHOLD:
                raise ValueError("share takes the place of threshold; name one or the other")
            return self

    learned: dict[str, Tensor]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Mark the tokens that will be learned, and say how many will not."""
        import torch

        losses = present_losses(learner, stage)
        if not losses:
            self.learned = {}
            return
        ascending = torch.cat(list(losses.values())).sort().values
        most = self._most(ascending)
        self.learned = {example: loss <= most for example, loss in losses.items()}
        left_out = (ascending > most).float().mean().item()
        if left_out == 1:
            raise UserError(
                f"stage {stage.name}: every answer token has a perplexity above method.threshold "
                f"({self.options.threshold:g}), so method stm leaves nothing to learn; the least is "
                f"{math.exp(ascending[0]):.3g}. Set a higher threshold, or method.share, such as 0.25."
            )
        self.notes.append(
            f"{left_out:.0%} of the answer tokens counted for nothing: their perplexity before the stage was "
            f"above {math.exp(most):.3g}."
        )

    def _most(self, ascending: Tensor) -> float:
        """The most that a token may cost, in nats, given what each of the stage's tokens does."""
        if self.options.share is None:
            return math.log(self.options.threshold)
        return float(ascending[len(ascending) - int(self.options.share * len(ascending)) - 1])

    def token_weights(self, batch: Sequence[Encoded], found: Tensor) -> Tensor:
        """1 where a token is learned, else 0."""
        import torch

        return torch.cat([self.learned[example.id] for example in batch]).to(found)
