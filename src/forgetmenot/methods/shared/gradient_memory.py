"""The common base of GEM and A-GEM: each gradient is compared with those of remembered examples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.rehearsal import Rehearsal
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class GradientMemory(Rehearsal):
    """Change a gradient that would raise the loss on past examples; any other stays, to the last bit.

    The claim is about the gradient: the optimizer is AdamW, which scales each coordinate afterwards.
    """

    shards = False
    preferences = False

    @abstractmethod
    def changed(self, learner: Learner) -> bool:
        """Change the gradient in place where the past objects to it, and say whether it did."""

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Count from here, and draw again."""
        self._draws = self.random(stage, "draw")
        self._steps = self._changed = 0

    def reference(self, learner: Learner, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """The gradient of the loss on a batch of remembered examples, the mean that the step's own loss is.

        Over answer tokens, or over examples, each the mean over its own tokens (`training.loss_average`).
        """
        order = self._draws.permutation(len(examples))[: self.options.batch]
        batch = [examples[k] for k in order]
        lengths = answer_lengths(batch)
        averaged = learner.loss_average == "example"
        found = learner.gradient_of(batch, [1 / length for length in lengths] if averaged else None)
        return {name: value / (len(batch) if averaged else sum(lengths)) for name, value in found.items()}

    def gradients(self, learner: Learner) -> None:
        """Ask the past, if there is one."""
        if self.memory:
            self._steps += 1
            self._changed += self.changed(learner)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Say how often the gradient was changed, and remember."""
        if self._steps:
            self.notes.append(f"the gradient was changed in {self._changed} of {self._steps} steps.")
        super().end(learner, stage)

    def training_state(self) -> dict[str, Any]:
        """The draws, and what is counted."""
        draws = self._draws.bit_generator.state
        return {"draws": draws, "steps": self._steps, "changed": self._changed}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self._draws.bit_generator.state = state["draws"]
        self._steps, self._changed = state["steps"], state["changed"]
