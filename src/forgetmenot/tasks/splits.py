"""What is learned, what is chosen on, what is measured on: three splits that do not overlap."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from forgetmenot.tasks.task import Example

SELECT_SEED = 20250401  # fixed, whatever the seed of a run: choices made on `select` stay comparable
SELECT_MOST = 1000
TOO_FEW_TO_CARVE = 20
NAMES_OF_ROWS = {"id", "idx", "index", "guid"}  # these tell rows apart that say the same

_canonical = json.JSONEncoder(sort_keys=True, default=str).encode


class Splits(NamedTuple):
    """The splits of a task, and sentences on repeats and leaks."""

    train: list[Example]
    select: list[Example]
    score: list[Example]
    notes: tuple[str, ...]


def divide(train: list[Example], score: list[Example], select: list[Example] | None = None) -> Splits:
    """Carve `select` from `train` unless it is given, and count what stands twice.

    `select` is min(1000, a tenth of train), none where train has fewer than 20 rows. Which examples it takes
    depends on their text alone: not on the run's seed, the order of rows or the file's layout.
    """
    notes = _repeats(train, score, select or [])
    if select is None:
        train, select = _carve(train)
    return Splits(train, select, score, notes)


def content(example: Example) -> str:
    """What an example says, its label and the row's own name left out."""
    fields = {name: value for name, value in example.fields.items() if name not in NAMES_OF_ROWS}
    return _canonical(fields)


def _carve(train: list[Example]) -> tuple[list[Example], list[Example]]:
    if len(train) < TOO_FEW_TO_CARVE:
        return train, []
    size = min(SELECT_MOST, len(train) // 10)
    copies = defaultdict(list)
    for row, example in enumerate(train):
        copies[_rank(example)].append(row)
    chosen: set[int] = set()
    for rank in sorted(copies):
        if len(chosen) + len(copies[rank]) <= size:  # all copies or none: select must not stand in train
            chosen.update(copies[rank])
        if len(chosen) == size:
            break
    kept = [example for row, example in enumerate(train) if row not in chosen]
    return kept, [train[row] for row in sorted(chosen)]


def _rank(example: Example) -> bytes:
    return hashlib.sha256(f"{SELECT_SEED}:{content(example)}".encode()).digest()


def _repeats(train: list[Example], score: list[Example], select: list[Example]) -> tuple[str, ...]:
    learned = {content(example) for example in train}
    notes = []
    if repeats := len(train) - len(learned):
        notes.append(f"{repeats:,} of {len(train):,} examples of train repeat an earlier one word for word.")
    for name, split in (("select", select), ("score", score)):
        if leaks := _count_in(split, learned):
            notes.append(f"{leaks:,} of {len(split):,} examples of {name} stand in train word for word.")
    if leaks := _count_in(score, {content(example) for example in select}):
        notes.append(f"{leaks:,} of {len(score):,} examples of score stand in select word for word.")
    return tuple(notes)


def _count_in(split: Sequence[Example], known: set[str]) -> int:
    return sum(content(example) in known for example in split) if known else 0
