"""The common base of projection methods: no step changes what was learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetmenot.methods.shared.anchor import beside
from forgetmenot.methods.shared.method import Method, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class Projection(Method):
    """Keep every step out of the directions that past tasks need.

    The papers project the gradient of plain SGD, whose step then lies where the gradient does. AdamW scales
    each coordinate and decays weights, which leads out of there again; so the step that it took is projected
    too, and what the papers show of the gradient holds of the weights.
    """

    shards = False

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.basis: dict[str, Tensor] = {}

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Have the directions at hand: each step needs them twice."""
        self.basis = beside(learner, self.basis)

    @abstractmethod
    def project(self, values: Mapping[str, Tensor]) -> None:
        """Take what past tasks need out of a change of the parameters that learn, by name and in place."""

    def gradients(self, learner: Learner) -> None:
        """Project the gradient, and see where the step begins."""
        if self.basis:
            self.project(learner.gathered())
            self._before = learner.snapshot()

    def stepped(self, learner: Learner) -> None:
        """Project the step."""
        from forgetmenot.engine.learner import copy_weights

        if self.basis:
            step = {name: p.detach() - self._before[name] for name, p in learner.trainable().items()}
            self.project(step)
            copy_weights(learner.trainable(), {name: self._before[name] + step[name] for name in step})

    def training_state(self) -> dict[str, Any]:
        """Nothing: what a step begins with is of that step alone."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The directions that past tasks need."""
        return {f"basis.{name}": value for name, value in self.basis.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep out of them again."""
        self.basis = {name.removeprefix("basis."): value for name, value in state.items()}
