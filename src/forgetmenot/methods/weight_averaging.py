"""Weight averaging: after each stage, go back part of the way that the weights went.

WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", CVPR, arXiv 2109.01903):

    θ ← (1 − α) θ_anchor + α θ

The paper has one transfer and anchors at the pre-trained model. Over several stages the anchor is either
where the stage began (`previous`) or the base model (`base`). The next stage starts from the average. With
LoRA it is the weights that are averaged, α/r · B A added, not A and B; the average of two products has twice
their rank, so it goes into the weights. What is kept of the way from the base are then the factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from forgetmenot.methods.shared.anchor import from_state, to_state
from forgetmenot.methods.shared.merge import (
    LEFT,
    Formed,
    Stream,
    Vector,
    adapted_layers,
    copied,
    interpolated,
    learned,
    replace,
    weights,
)
from forgetmenot.methods.shared.method import Method, Options, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class WeightAveraging(Method):
    """Average the weights after each stage with those before it, or with the base's (WiSE-FT)."""

    keeps = "with anchor: base one copy of the weights that learn, or each stage's adapter; else nothing"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full"), "per_stage": ("merge",)}
    shards = False

    class Options(Options):
        """The settings of `weight-averaging`."""

        share: float = Field(default=0.5, ge=0, le=1)
        """The share α of what the stage learned; 1 is `sequential`, 0 the anchor. The paper's, where no data
        are left to choose it on."""
        anchor: Literal["previous", "base"] = "previous"
        """What the rest is: the weights with which the stage, or the first stage, began."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.anchor: Vector = {}  # in full fine-tuning
        self.moved: list[Vector] = []  # with LoRA: how the weights came from the base, stage by stage

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the anchor, or keep the first stage's."""
        if self.options.share < 1 and not adapted_layers(learner):
            kept = self.options.anchor == "base" and self.anchor
            self.anchor = self.anchor if kept else copied(weights(learner))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Average."""
        share: float = self.options.share
        if share == 1:
            return
        if not adapted_layers(learner):
            replace(learner, interpolated(self.anchor, weights(learner), share))
            return
        added = learned(learner, {})
        replace(learner, self._averaged(learner, added))
        if self.options.anchor == "base":
            self.moved = [_scaled(part, share) for part in (*self.moved, added)]

    def _averaged(self, learner: Learner, added: Vector) -> Stream:
        """The weights with the share of what the adapters add, and of how they came from the anchor."""
        share: float = self.options.share
        present, before = weights(learner), Formed(self.moved, learner.device)
        for name, value in Formed([added], learner.device).items():
            ahead = present[name] + share * value
            yield name, ahead - (1 - share) * before[name] if self.moved else ahead

    def state_dict(self) -> dict[str, Any]:
        """The base's values, if they are the anchor, or the way from there."""
        kept = self.anchor if self.options.anchor == "base" else {}
        return to_state(anchor=kept, **{str(k): part for k, part in enumerate(self.moved)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.anchor = from_state(state, "anchor")
        count = len({name.split(".")[0] for name in state} - {"anchor"})
        self.moved = [from_state(state, str(k)) for k in range(count)]


def _scaled(part: Vector, share: float) -> dict[str, Tensor]:
    """What adapters added, times a number: one of the two factors is."""
    return {name: share * value if name.endswith(LEFT) else value for name, value in part.items()}
