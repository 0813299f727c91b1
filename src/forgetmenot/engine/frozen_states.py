"""What the layers that never learn give, computed once for each token prefix of a run's sequences.

A state depends in its last bits on the pack that it is computed in. So the packs are canonical: a set of
sequences, such as a task's training examples, is sorted and cut by a pure function, whatever batches are
drawn from it later, and a run reads the same bits whether it computes them or finds them on disk.
"""

import bisect
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from forgetmenot.engine.lower import LowerStates
from forgetmenot.engine.pack import Pack, cut, pack
from forgetmenot.engine.state_files import StateFiles
from forgetmenot.engine.trie import Ints
from forgetmenot.prompting.encoded import TokenSequence

WAIT_S = 0.2  # between two looks at what another process computes


@dataclass(frozen=True)
class FrozenSet:
    """Sequences whose states are kept together, in canonical packs.

    Attributes:
        name: What they are, for readers.
        inputs: Their distinct inputs, sorted.
        budget: See `pack.cut`.
    """

    name: str
    inputs: tuple[tuple[int, ...], ...]
    budget: int

    @classmethod
    def of(cls, name: str, sequences: Iterable[TokenSequence], budget: int) -> "FrozenSet":
        """The set of these sequences."""
        return cls(name, tuple(sorted({sequence.tokens[:-1] for sequence in sequences})), budget)

    @cached_property
    def packs(self) -> tuple[Pack, ...]:
        """What goes through the lower layers at once: in the order of `inputs`."""
        asked = [TokenSequence((*tokens, 0), len(tokens)) for tokens in self.inputs]
        return tuple(pack([asked[k] for k in part], "trie") for part in cut(asked, "trie", self.budget))

    @property
    def states(self) -> int:
        """How many there are: one for each distinct prefix, and again where a pack ends between."""
        return sum(packed.nodes for packed in self.packs)

    @cached_property
    def rows(self) -> tuple[Ints, ...]:
        """For each of `inputs` the state of each of its tokens, by its row."""
        found, before = [], 0
        for packed in self.packs:
            found += [places + before for places in packed.places]
            before += packed.nodes
        return tuple(found)

    def key(self, about: str) -> str:
        """A hash of all that the states depend on; `about` says what does not lie in the tokens."""
        digest = hashlib.sha256(f"{about} {self.budget}".encode())
        for tokens in self.inputs:
            digest.update(np.array([len(tokens), *tokens], dtype=np.int64).tobytes())
        return digest.hexdigest()[:32]


@dataclass
class FrozenStates:
    """The states of a run's sets of sequences.

    Attributes:
        first: The number of the first layer that learns.
        in_tuple: See `LowerStates`.
        sets: In the order in which a sequence is looked for.
        states: Each set's, on the CPU [states, width].
    """

    first: int
    in_tuple: bool
    sets: tuple[FrozenSet, ...]
    states: list[Tensor] = field(default_factory=list)

    def under(self, packed: Pack, sequences: Sequence[TokenSequence]) -> Pack:
        """The pack with what enters its first layer that learns; as it is, if a sequence is not known."""
        if packed.end is None:
            return packed
        found = [self._find(sequence.tokens[:-1]) for sequence in sequences]
        if None in found:
            return packed
        of, rows = np.zeros(packed.nodes, dtype=np.int64), np.zeros(packed.nodes, dtype=np.int64)
        for places, where in zip(packed.places, found, strict=True):
            assert where is not None
            of[places], rows[places] = where[0], where[1][packed.prefix :]
        return replace(packed, lower=LowerStates(self.first, self.in_tuple, lambda: self._read(of, rows)))

    def _find(self, tokens: tuple[int, ...]) -> tuple[int, Ints] | None:
        """The set that holds the tokens, or what begins with them, and their rows there."""
        for number, one in enumerate(self.sets):
            at = bisect.bisect_left(one.inputs, tokens)
            if at < len(one.inputs) and one.inputs[at][: len(tokens)] == tokens:
                return number, one.rows[at][: len(tokens)]
        return None

    def _read(self, of: Ints, rows: Ints) -> Tensor:
        first = self.states[int(of[0])]
        found = first.new_empty(len(rows), first.shape[1])
        for number in np.unique(of).tolist():
            here = torch.from_numpy(np.flatnonzero(of == number))
            found[here] = self.states[number][torch.from_numpy(rows)[here]]
        return found


def keep_states(
    frozen: FrozenStates,
    sets: Sequence[FrozenSet],
    about: str,
    compute: Callable[[Pack], LowerStates],
    files: StateFiles | None,
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> list[str]:
    """Fill in the states of sets, from disk, or computed and left there for others.

    What another process is computing is left to it while there is something else to do.

    Args:
        frozen: What keeps them.
        sets: Sequences, in the order in which one is looked for.
        about: See `FrozenSet.key`.
        compute: The pass through the lower layers.
        files: Where they lie; None to hold them in memory.
        progress: Shows how many states are there.

    Returns:
        Sentences on what did not go as it should.
    """
    keys = [one.key(about) for one in sets]
    found: dict[int, Tensor] = {}
    said: list[str] = []
    with progress("frozen layers", sum(one.states for one in sets)) as advance:
        while len(found) < len(sets):
            before = len(found)
            for number, one in enumerate(sets):
                if number not in found:
                    states = _states_of(one, keys[number], compute, files, advance, said)
                    if states is not None:
                        found[number] = states
            if len(found) == before:
                time.sleep(WAIT_S)
    frozen.sets, frozen.states = tuple(sets), [found[number] for number in range(len(sets))]
    return said


def _states_of(
    one: FrozenSet,
    key: str,
    compute: Callable[[Pack], LowerStates],
    files: StateFiles | None,
    advance: Callable[[int], None],
    said: list[str],
) -> Tensor | None:
    """The states of a set; None while another process computes them."""

    def parts() -> Iterator[Tensor]:
        for packed in one.packs:
            states = compute(packed).read().cpu()
            advance(packed.nodes)
            yield states

    if files is not None:
        with files.claimed(key) as mine:
            if not mine:
                return None
            if (states := files.read(key, one.states, said)) is not None:
                advance(one.states)
                return states
            if (states := files.write(key, one.states, parts(), said)) is not None:
                return states
    return torch.cat(list(parts()))
