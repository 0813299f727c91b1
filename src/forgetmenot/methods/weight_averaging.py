"""Weight averaging: after each stage, go back part of the way that the weights went.

WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", CVPR, arXiv 2109.01903):

    θ ← (1 − α) θ_anchor + α θ

The paper has one transfer and anchors at the pre-trained model. Over several stages the anchor is either
where the stage began (`previous`) or the base model (`base`). The next stage starts from the average. With
LoRA it is the weights that are averaged, α/r · B A added, not A and B; the average of two products has twice
their rank, so it goes into the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from forgetmenot.methods.shared.anchor import beside, from_state, to_state
from forgetmenot.methods.shared.merge import Vector, interpolated, replace, weights
from forgetmenot.methods.shared.method import Method, Options, Stage

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class WeightAveraging(Method):
    """Average the weights after each stage with those before it, or with the base's (WiSE-FT)."""

    keeps = "one copy of the weights that learn, with anchor: base; else nothing"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full"), "per_stage": ("merge",)}
    shards = False

    class Options(Options):
        """The settings of `weight-averaging`.

        Attributes:
            share: α, of what the stage learned; 1 is `sequential`, 0 the anchor. The paper's, where no data
                are left to choose it on.
            anchor: What the rest is: the weights with which the stage, or the first stage, began.
        """

        share: float = Field(default=0.5, ge=0, le=1)
        anchor: Literal["previous", "base"] = "previous"

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.anchor: Vector = {}

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the anchor, or keep the first stage's."""
        if self.options.share == 1:
            return
        kept = self.options.anchor == "base" and self.anchor
        self.anchor = beside(learner, self.anchor) if kept else weights(learner)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Average."""
        if self.options.share < 1:
            replace(learner, interpolated(self.anchor, weights(learner), self.options.share))

    def state_dict(self) -> dict[str, Any]:
        """The base's values, if they are the anchor."""
        return to_state(anchor=self.anchor if self.options.anchor == "base" else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.anchor = from_state(state, "anchor")
