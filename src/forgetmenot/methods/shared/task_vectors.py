"""The common base of methods with one task vector per task: where stages begin, what is stored.

A stage trains its task, its task vector is kept, and the stage's model is θ₀ + scale · merged(τ₁ … τₜ). The
merged model is what is scored and saved; no task is trained on it, so its merging errors do not add up.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeFloat

from forgetmenot.methods.shared.anchor import beside, from_state, to_state
from forgetmenot.methods.shared.merge import Vector, difference, moved, replace, weights
from forgetmenot.methods.shared.method import Method, Options, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class MergingOptions(Options):
    """How far the merged model lies from the base.

    Attributes:
        scale: λ of the merged task vector; 0 is the base model.
    """

    scale: NonNegativeFloat = 1.0


class TaskVectors(Method):
    """Keep a task vector for each task, and answer with the base model moved by all of them, merged.

    Attributes:
        sequential: Whether a task is trained from the weights at which training on the one before ended,
            its vector still taken from the base; else from the base.
    """

    Options = MergingOptions
    keeps = "its task vector: a copy of the weights that learn"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full"), "per_stage": ("merge",)}
    shards = False
    sequential: ClassVar[bool] = False

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.vectors: list[Vector] = []
        self.base: Vector = {}

    @abstractmethod
    def merged(self, vectors: Sequence[Vector]) -> Vector:
        """One vector of those of all tasks, in order."""

    def start(self, stage: Stage) -> Literal["previous", "base"]:
        """The base: task vectors are measured from it."""
        return "base"

    def follows(self, stage: Stage) -> bool:
        """The model after a stage holds the tasks before it."""
        return True

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Remember the base while the stage trains; go to where the task before was trained, if so asked."""
        self.vectors = [beside(learner, vector) for vector in self.vectors]
        self.base = weights(learner)
        if self.sequential and self.vectors:
            replace(learner, moved(self.base, self.vectors[-1]))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Keep the task's vector, and merge."""
        self.vectors.append(difference(weights(learner), self.base))
        replace(learner, moved(self.base, self.merged(self.vectors), self.options.scale))
        self.base = {}

    def state_dict(self) -> dict[str, Any]:
        """The vectors, by the number of their task."""
        return to_state(**{str(k): vector for k, vector in enumerate(self.vectors)})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them up."""
        count = len({name.split(".")[0] for name in state})
        self.vectors = [from_state(state, str(k)) for k in range(count)]
