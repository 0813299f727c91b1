"""Many encoded examples in flat arrays: a tenth of the memory of tuples of Python integers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from forgetmenot.prompting.encoded import Encoded, TokenSequence

Arrays = dict[str, NDArray[np.int32]]


class EncodedExamples(Sequence[Encoded]):
    """A sequence of encoded examples, each made when it is needed.

    Attributes:
        ids: The examples' ids.
        arrays: All else. `tokens` holds for each example in turn its parts: the tokens before `start`, which
            all that the example holds have in common, then what follows there in the prompt, the answer and
            each candidate. `lengths` are those of the parts [examples, parts], of which an example without
            candidates has three and −1 in place of the prompt's where there is none; `gold` is −1 for none.
    """

    def __init__(self, ids: Sequence[str], arrays: Arrays) -> None:
        self.ids, self.arrays = ids, arrays
        spans = arrays["lengths"].clip(min=0).sum(axis=1, dtype=np.int64)
        self._begins = np.concatenate([[0], np.cumsum(spans)])

    @classmethod
    def of(cls, examples: Sequence[Encoded]) -> EncodedExamples:
        """Lay examples out. All have the same number of candidates, as the examples of a task do."""
        parts = [_parts(example) for example in examples]
        flat = chain.from_iterable(part for row in parts for part in row if part is not None)
        lengths = [[-1 if part is None else len(part) for part in row] for row in parts]
        return cls(
            [example.id for example in examples],
            {
                "tokens": np.fromiter(flat, np.int32),
                "lengths": np.array(lengths, np.int32).reshape(len(parts), len(parts[0]) if parts else 3),
                "gold": np.array([-1 if e.gold is None else e.gold for e in examples], np.int32),
                "cut": np.array([e.cut for e in examples], np.int32),
                "left_out": np.array([e.left_out for e in examples], np.int32),
            },
        )

    @classmethod
    def join(cls, batches: Sequence[EncodedExamples]) -> EncodedExamples:
        """Put the examples of one task together."""
        filled = [batch for batch in batches if len(batch)]
        if not filled:
            return cls.of([])
        names = filled[0].arrays
        arrays = {name: np.concatenate([batch.arrays[name] for batch in filled]) for name in names}
        return cls([id for batch in filled for id in batch.ids], arrays)

    def only(self, places: Sequence[int]) -> EncodedExamples:
        """Some of the examples."""
        return EncodedExamples.of([self[k] for k in places])

    @property
    def sequence_count(self) -> int:
        """How many sequences are scored: all candidates, or all answers."""
        return len(self) * max(1, int(self.arrays["lengths"].shape[1]) - 3)

    @property
    def truncated(self) -> dict[str, int]:
        """How many examples were cut to fit, and by how many tokens in all."""
        cut = self.arrays["cut"]
        return {"examples": int(np.count_nonzero(cut)), "tokens": int(cut.sum(dtype=np.int64))}

    @property
    def left_out(self) -> int:
        """In how many examples the chat template does not write all that the assistant said before."""
        return int(np.count_nonzero(self.arrays["left_out"]))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        """Make an example, or a list of them."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return self._made(range(len(self))[index])

    def _made(self, k: int) -> Encoded:
        lengths = self.arrays["lengths"][k].tolist()
        row = self.arrays["tokens"][self._begins[k] : self._begins[k + 1]].tolist()
        start, *rest = lengths
        shared = tuple(row[:start])
        whole, at = [], start
        for length in rest:
            whole.append(shared + tuple(row[at : at + max(length, 0)]))
            at += max(length, 0)
        prompt, answer, *candidates = whole
        gold = int(self.arrays["gold"][k])
        return Encoded(
            id=self.ids[k],
            candidates=tuple(TokenSequence(tokens, start) for tokens in candidates),
            answer=TokenSequence(answer, start),
            prompt=prompt if rest[0] >= 0 else (),
            gold=None if gold < 0 else gold,
            cut=int(self.arrays["cut"][k]),
            left_out=int(self.arrays["left_out"][k]),
        )


class RaggedExamples(EncodedExamples):
    """Choices among any number of candidates, which need not begin alike: those of benchmarks.

    Attributes:
        rows: Every candidate, example after example, as the answer of a row of its own.
    """

    def __init__(self, ids: Sequence[str], rows: EncodedExamples, counts: Sequence[int]) -> None:
        self.ids, self.rows = ids, rows
        self.arrays = {**rows.arrays, "counts": np.array(counts, np.int32)}
        self._begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @classmethod
    def of(cls, examples: Sequence[Encoded]) -> RaggedExamples:
        """Lay examples out."""
        rows = [
            Encoded(one.id, (), candidate, (), one.gold, one.cut if number == 0 else 0)
            for one in examples
            for number, candidate in enumerate(one.candidates)
        ]
        counts = [len(one.candidates) for one in examples]
        return cls([one.id for one in examples], EncodedExamples.of(rows), counts)

    def only(self, places: Sequence[int]) -> RaggedExamples:
        """Some of the examples."""
        return RaggedExamples.of([self[k] for k in places])

    @property
    def sequence_count(self) -> int:
        """How many sequences are scored."""
        return len(self.rows)

    def _made(self, k: int) -> Encoded:
        rows = self.rows[int(self._begins[k]) : int(self._begins[k + 1])]
        candidates, gold = tuple(row.answer for row in rows), rows[0].gold
        return Encoded(
            id=self.ids[k],
            candidates=candidates,
            answer=candidates[gold or 0],
            prompt=candidates[0].tokens[: candidates[0].start],
            gold=gold,
            cut=rows[0].cut,
        )


def _parts(example: Encoded) -> list[tuple[int, ...] | None]:
    start = example.answer.start
    return [
        example.answer.tokens[:start],
        example.prompt[start:] if example.prompt else None,
        example.answer.tokens[start:],
        *(candidate.tokens[start:] for candidate in example.candidates),
    ]


class Mix(Sequence[Encoded]):
    """New examples, each made when it is needed, past ones after them, and what else is learned beside both.

    Attributes:
        new: As they lie in memory: a list of them would take ten times as much.
        past: The places of past examples.
    """

    def __init__(
        self, new: Sequence[Encoded], past: Sequence[Encoded], further: Sequence[Encoded] = ()
    ) -> None:
        self.new, self.past = new, range(len(new), len(new) + len(past))
        self._kept = [*past, *further]

    def __len__(self) -> int:
        return len(self.new) + len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        """One example, or those of a slice."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        return self.new[k] if k < len(self.new) else self._kept[k - len(self.new)]

    def beside(self, further: Sequence[Encoded]) -> Mix:
        """The same, and further examples behind them."""
        past = self._kept[: len(self.past)]
        return Mix(self.new, past, [*self._kept[len(self.past) :], *further])
