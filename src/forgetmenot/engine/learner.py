"""The engine's handle on the current model: what methods, evaluation and probes act through."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetmenot.engine import shards
from forgetmenot.engine.gradients import Gradients
from forgetmenot.engine.writing import Writing

Snapshot = Mapping[str, Tensor]


@dataclass
class Learner(Gradients, Writing):
    """A model that learns: the numbers that it gives back, what it writes, and its weights, to keep and set.

    Its attributes are those of `LaidOut`.
    """

    def snapshot(self) -> Snapshot:
        """A copy of the parameters that learn."""
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    @contextmanager
    def with_weights(self, snapshot: Snapshot) -> Iterator[None]:
        """Answer with other values of the named parameters, then put the present ones back."""
        shards.put_away(self.model)
        parameters = dict(self.model.named_parameters())
        present = {name: parameters[name].detach().clone() for name in snapshot}
        try:
            copy_weights(parameters, snapshot)
            yield
        finally:
            shards.put_away(self.model)
            copy_weights(parameters, present)

    def dot(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        """The inner product over all parameters of two sets of values for them, summed in fp64."""
        products = [(value.double() * other[name].double()).sum() for name, value in one.items()]
        return sum(shards.whole(product).item() for product in products)

    def norm(self, values: Mapping[str, Tensor]) -> float:
        """The Euclidean norm over all parameters."""
        return math.sqrt(self.dot(values, values))


def copy_weights(parameters: Mapping[str, Tensor], values: Snapshot) -> None:
    """Copy values into the parameters of the same names.

    Autocast keeps what it has rounded of a weight as long as its context lasts, and would go on with that.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
