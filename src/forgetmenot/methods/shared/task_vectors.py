"""The common base of methods with one task vector per task: where stages begin, what is stored.

A stage trains its task, its task vector is kept, and the stage's model is θ₀ + scale · merged(τ₁ … τₜ). The
merged model is what is scored and saved; no task is trained on it, so its merging errors do not add up.

What is kept lies on the CPU, of LoRA its factors; whole is at any time one tensor of each vector.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forgetmenot.methods.shared.anchor import from_state, to_state
from forgetmenot.methods.shared.merge import (
    Formed,
    Stream,
    Vector,
    adapted_layers,
    copied,
    learned,
    moved,
    replace,
    weights,
)
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class MergingOptions(Options):
    """How far the merged model lies from the base."""

    scale: NonNegativeFloat = 1.0
    """λ of the merged task vector; 0 is the base model."""


class TaskVectors(Method):
    """Keep a task vector for each task, and answer with the base model moved by all of them, merged.

    Attributes:
        sequential: Whether a task is trained from the weights at which training on the one before ended,
            its vector still taken from the base; else from the base.
        learned: What each stage added to where it began: adapters' factors; in full fine-tuning the vector
            itself.
    """

    Options = MergingOptions
    keeps = "its task vector: a copy of what learns"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full"), "per_stage": ("merge",)}
    shards = False
    sequential: ClassVar[bool] = False

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.learned: list[Vector] = []
        self.base: Vector = {}

    @abstractmethod
    def merged(self, vectors: Sequence[Vector]) -> Stream:
        """One vector of those of all tasks, in order."""

    def vectors(self, learner: Learner) -> list[Vector]:
        """The vectors of all tasks, in order; with adapters after adapters each holds those before it."""
        added = self.sequential and bool(adapted_layers(learner))
        first = [0 if added else k for k in range(len(self.learned))]
        return [Formed(self.learned[a : k + 1], learner.device) for k, a in enumerate(first)]

    def start(self, stage: Stage) -> Literal["previous", "base"]:
        """The base: task vectors are measured from it."""
        return "base"

    def follows(self, stage: Stage) -> bool:
        """The model after a stage holds the tasks before it."""
        return True

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Remember the base while the stage trains; go to where the task before was trained, if so asked."""
        goes_on = self.sequential and self.learned
        if goes_on or not adapted_layers(learner):  # else the base stays where it is, under the adapter
            self.base = copied(weights(learner))
        if goes_on:
            replace(learner, moved(self.base, self.vectors(learner)[-1].items()))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Keep the task's vector, and merge."""
        self.learned.append(learned(learner, self.base))
        merged = self.merged(self.vectors(learner))
        replace(learner, moved(self.base or weights(learner), merged, self.options.scale))
        self.base = {}

    def state_dict(self) -> dict[str, Any]:
        """What was learned, by the number of its task."""
        return to_state(**{str(k): vector for k, vector in enumerate(self.learned)})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them up."""
        count = len({name.split(".")[0] for name in state})
        self.learned = [from_state(state, str(k)) for k in range(count)]
