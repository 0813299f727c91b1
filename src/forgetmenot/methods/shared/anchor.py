"""Anchors: earlier values of the weights that a method stays near, or answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.models.settings import AdapterSettings

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class Importances(Method):
    """Hold each weight near an anchor, as firmly as earlier stages found it important.

    Attributes:
        name: The method's, for what it refuses.
        importance: By parameter; empty in the first stage.
        anchor: Likewise.
    """

    name: ClassVar[str]
    keeps = "importances and anchors: two copies of what learns, however many tasks"
    shards = False

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.importance: Snapshot = {}
        self.anchor: Snapshot = {}

    def check(self, adapter: AdapterSettings) -> None:
        """A parameter's importance is its own."""
        require_the_same_parameters(self.name, adapter)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take up the importances of the stages before."""
        self.importance, self.anchor = beside(learner, self.importance), beside(learner, self.anchor)

    def state_dict(self) -> dict[str, Any]:
        """Importances and anchors."""
        return to_state(importance=self.importance, anchor=self.anchor)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.importance, self.anchor = from_state(state, "importance"), from_state(state, "anchor")


def squared_distance(learner: Learner, anchor: Snapshot, importance: Snapshot | None = None) -> Tensor:
    """Σₖ Iₖ (θₖ − aₖ)² over all parameters that learn; Iₖ = 1 where no importance is given."""
    import torch

    parts = []
    for name, parameter in learner.trainable().items():
        squares = (parameter - anchor[name]).square()
        parts.append((squares if importance is None else importance[name] * squares).sum())
    return torch.stack(parts).sum()


def require_the_same_parameters(method: str, adapter: AdapterSettings) -> None:
    """Refuse adapters that start again: what was learned about an old one says nothing about its successor.

    Raises:
        UserError: If a later stage would learn other parameters than the first.
    """
    if adapter.per_stage != "continue":
        raise UserError(
            f"method {method} compares the trained parameters with their values in earlier stages, but with "
            f"adapter.per_stage: {adapter.per_stage} each stage trains new parameters. "
            "Use per_stage: continue, or kind: full."
        )


def to_state(**groups: Snapshot) -> dict[str, Tensor]:
    """Groups of named tensors as one flat dict for `state_dict`: {"anchor.layer.weight": …}."""
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def from_state(state: Mapping[str, Any], group: str) -> dict[str, Tensor]:
    """One of the groups that `to_state` was given; empty if it is not there."""
    prefix = f"{group}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def beside(learner: Learner, values: Snapshot) -> dict[str, Tensor]:
    """The same values on the learner's device: what was loaded from a file is not there yet."""
    return {name: value.to(learner.device) for name, value in values.items()}
