"""What keeps log-likelihoods as they come, so that after an interruption none is computed twice."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from torch import Tensor

from forgetmenot.engine.pack import Arrangement


class KeptParts(Protocol):
    """The packs of an arrangement that an earlier process has scored.

    Attributes:
        done: What each of them gave, fp64: see `forward.log_likelihoods`.
    """

    done: Mapping[int, Tensor]

    def add(self, pack: int, values: Tensor) -> None:
        """Keep what a further one gave."""


class Keeps(Protocol):
    """Where packs are kept.

    Attributes:
        part: Which part of the method answers, where it routes; others answer the same pack otherwise.
    """

    part: str

    def parts(self, model: Any, arranged: Arrangement, *, greedy: bool) -> AbstractContextManager[KeptParts]:
        """What is there of an arrangement, by the same weights, and what keeps more."""


class KeepsNothing:
    """Every pack is computed, and none is kept."""

    part = ""
    done: Mapping[int, Tensor] = {}

    @contextmanager
    def parts(self, model: Any, arranged: Arrangement, *, greedy: bool) -> Iterator[KeptParts]:
        """Nothing is there."""
        yield self

    def add(self, pack: int, values: Tensor) -> None:
        """Do nothing."""
