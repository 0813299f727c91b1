"""The states of layers that never learn, kept as a run keeps them, for the benchmarks of a run's parts."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.engine.frozen_states import FrozenSet, FrozenStates, keep_states
from forgetmenot.engine.guard import try_frozen
from forgetmenot.engine.laid_out import unseen
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.state_files import StateFiles
from forgetmenot.errors import UserError
from forgetmenot.models.layers import Layers, first_learning
from forgetmenot.prompting import TokenSequence

MOST = 10_000_000_000
"""Bytes on disk: the default of `adapter.frozen_cache_gb`."""


@dataclass(frozen=True)
class LowerLayers:
    """What gives a learner the states below its first layer that learns.

    Attributes:
        example: What the guard has found: how the model takes states.
        sets: The sequences whose states are kept.
        folder: Where they are kept.
    """

    learner: Learner
    example: FrozenStates
    sets: tuple[FrozenSet, ...]
    folder: Path

    @classmethod
    def of(
        cls, learner: Learner, layers: Layers, asked: Mapping[str, Iterable[TokenSequence]], folder: Path
    ) -> "LowerLayers":
        """Let the guard try it; nothing is kept yet.

        Raises:
            UserError: If this model's passes cannot begin with the first layer that learns.
        """
        first = first_learning(learner.model, layers)
        sequences = {name: list(some) for name, some in asked.items()}
        found = try_frozen(learner, first, next(iter(sequences.values())))
        if isinstance(found, str):
            raise UserError(f"this model's passes cannot begin with layer {first}: {found}.")
        sets = tuple(FrozenSet.of(name, some, learner.budget) for name, some in sequences.items())
        return cls(learner, found, sets, folder)

    def compute(self) -> None:
        """Compute and keep the states, as the first run of a study does."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.read()

    def read(self) -> None:
        """Read the states where they are kept, as later runs do; what is not there is computed."""
        learner, first = self.learner, self.example.first
        states = FrozenStates(first, self.example.in_tuple, self.sets)
        learner.frozen = None
        with learner.below(first) as compute:
            said = keep_states(states, self.sets, "benchmark", compute, StateFiles(self.folder, MOST), unseen)
        if said:
            raise UserError(" ".join(said))
        learner.frozen = states
