"""L2-SP: weight decay towards the starting point instead of zero.

Li Xuhong, Grandvalet and Davoine (2018), "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", ICML, arXiv 1802.01483; without the term for a new head, which a language model has not:

    L(θ) + α/2 · ‖θ − θ⁰‖²

The paper has one transfer, from θ⁰ = the pre-trained weights. Over several stages θ⁰ is either where the
stage began (`previous`: nothing pulls back what the stages add up to) or the base model (`base`). With LoRA
the values of A and B are held, not their product: at the first stage, A near its random start and B near 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from forgetmenot.methods.shared.anchor import (
    beside,
    from_state,
    require_the_same_parameters,
    squared_distance,
    to_state,
)
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class L2SP(Method):
    """Pull the weights towards their values at the start of the stage or the run (L2-SP)."""

    keeps = "one copy of what learns, with anchor: base; else nothing"
    shards = False

    class Options(Options):
        """The settings of `l2-sp`."""

        strength: NonNegativeFloat = 0.01
        """The weight α of the penalty; 0 is `sequential`. The default is our own."""
        anchor: Literal["previous", "base"] = "previous"
        """θ⁰: the weights that the stage began with, or those that the first stage began with."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.anchor: Snapshot = {}

    def check(self, adapter: AdapterSettings) -> None:
        """The base is an anchor only for parameters that it had."""
        if self.options.anchor == "base":
            require_the_same_parameters("l2-sp with anchor: base", adapter)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the anchor, or keep the first stage's."""
        if self.options.anchor == "base" and self.anchor:
            self.anchor = beside(learner, self.anchor)
        else:
            self.anchor = learner.snapshot()

    def penalty(self, learner: Learner) -> Tensor | None:
        """α/2 · ‖θ − θ⁰‖²."""
        strength: float = self.options.strength
        if not strength:
            return None
        return strength / 2 * squared_distance(learner, self.anchor)

    def state_dict(self) -> dict[str, Any]:
        """The base's values, if they are the anchor."""
        return to_state(anchor=self.anchor if self.options.anchor == "base" else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.anchor = from_state(state, "anchor")
