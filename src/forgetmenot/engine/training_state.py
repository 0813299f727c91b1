"""Where the training of a stage stands between two steps: all that going on from there needs.

The batches, the dropout of each pack and the answers that methods draw follow from seeds and the number of
the step, so no generator is part of it.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from forgetmenot.engine.learner import Learner, copy_weights

WEIGHTS, OPTIMIZER = "weights.", "optimizer."


@dataclass
class TrainingState:
    """A stage in training.

    Attributes:
        learner: Holds the weights.
        optimizer: AdamW, over the learner's trainable parameters.
        schedule: Of its learning rate.
        steps: How many optimizer steps the stage has.
        step: How many of them are done.
    """

    learner: Learner
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    steps: int
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """The weights that learn and the optimizer's moments, by name; they share the live ones' memory."""
        learning = self.learner.trainable()
        weights = {WEIGHTS + name: p.detach() for name, p in learning.items()}
        moments = {
            f"{OPTIMIZER}{key}.{name}": value
            for name, p in learning.items()
            for key, value in self.optimizer.state.get(p, {}).items()
        }
        return weights | moments

    def plain(self) -> dict[str, Any]:
        """The rest, as plain data."""
        return {
            "step": self.step,
            "steps": self.steps,
            "schedule": self.schedule.state_dict(),
            "divided": self.learner.divided,
        }

    def empty(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors of the names that `tensors` gave, to be filled: what is sharded is read into its shards."""
        learning = self.learner.trainable()
        made = {}
        for name in names:
            if name.startswith(WEIGHTS):
                made[name] = torch.zeros_like(learning[name.removeprefix(WEIGHTS)])
            else:
                key, _, of = name.removeprefix(OPTIMIZER).partition(".")
                made[name] = torch.zeros(()) if key == "step" else torch.zeros_like(learning[of])
        return made

    def take_up(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go on from what `tensors` and `plain` gave.

        Raises:
            KeyError: They are those of another model.
        """
        learning = self.learner.trainable()
        weights = {name: tensors[WEIGHTS + name] for name in learning}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(OPTIMIZER):
                key, _, of = name.removeprefix(OPTIMIZER).partition(".")
                moments.setdefault(of, {})[key] = value
        copy_weights(learning, weights)
        for name, state in moments.items():
            parameter = learning[name]
            # The optimizer changes its moments in place; those that were read are its own from here on.
            self.optimizer.state[parameter] = {key: v.to(parameter.device) for key, v in state.items()}
        self.schedule.load_state_dict(dict(plain["schedule"]))
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        self.step = plain["step"]
        while self.learner.divided < plain["divided"]:
            self.learner.divide()


class Saves(Protocol):
    """What keeps the state of a stage while it trains."""

    def take_up(self, state: TrainingState) -> None:
        """Before the first step: bring the stage to where an earlier process left it, if one did."""

    def stepping(self) -> AbstractContextManager[None]:
        """Around the steps, when alone a signal to end waits: for `stepped`, which saves first."""

    def stepped(self, state: TrainingState) -> None:
        """After every step."""
