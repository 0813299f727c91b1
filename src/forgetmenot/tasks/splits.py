"""The splits of a task, to learn, to choose and to measure on, without overlap."""

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from forgetmenot.tasks.task import Example

T = TypeVar("T")

SAMPLE_SEED = 20250402  # fixed: a limit takes the same examples in every run
SELECT_SEED = 20250401  # fixed, whatever the seed of a run: choices made on `select` stay comparable
SELECT_MOST = 1000
TOO_FEW_TO_CARVE = 20
NAMES_OF_ROWS = {"", "id", "idx", "index", "guid", "uid", "uuid", "url", "timestamp", "created_at"}
"""Columns that tell rows apart which say the same; so do `…_id`, and what pandas numbers them by."""

_canonical = json.JSONEncoder(sort_keys=True, default=str).encode


class Splits(NamedTuple):
    """The splits of a task, and sentences on repeats and leaks."""

    train: list[Example]
    select: list[Example]
    score: list[Example]
    notes: tuple[str, ...]


def divide(
    train: list[Example],
    score: list[Example],
    select: list[Example] | None = None,
    cluster: str | None = None,
) -> Splits:
    """Carve `select` from `train` unless it is given, and count what stands twice.

    `select` is min(1000, a tenth of train), none where train has fewer than 20 rows. Which examples it takes
    depends on their text alone: not on the run's seed, the order of rows or the file's layout; with a
    `cluster`, the field that examples share which are not independent, on that field: whole clusters.
    "train" in the sentences is train as it was read, `select` included.
    """
    said = {
        name: [digest_of(example) for example in split]
        for name, split in (("train", train), ("select", select or []), ("score", score))
    }
    notes = _repeats(said)
    if select is None:
        size = 0 if len(train) < TOO_FEW_TO_CARVE else min(SELECT_MOST, len(train) // 10)
        train, select = hold_out(train, size, cluster)
    return Splits(train, select, score, notes)


def digest_of(example: Example) -> bytes:
    """Digest what an example says, its label and the row's own name left out; also its lot in `hold_out`."""
    return _digest({name: value for name, value in example.fields.items() if not names_rows(name)})


def names_rows(column: str) -> bool:
    """Whether a column tells rows apart, and says nothing of its own."""
    name = column.lower()
    return name in NAMES_OF_ROWS or name.endswith("_id") or name.startswith("unnamed_")


def _digest(fields: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(f"{SELECT_SEED}:{_canonical(fields)}".encode()).digest()


def sample(name: str, examples: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most `limit` examples, drawn by the task's name alone, in their own order."""
    if limit is None or limit >= len(examples):
        return examples
    drawn = np.random.default_rng([SAMPLE_SEED, zlib.crc32(name.encode())]).permutation(len(examples))
    return [examples[k] for k in sorted(drawn[:limit].tolist())]


def hold_out(
    rows: list[Example], size: int, cluster: str | None = None
) -> tuple[list[Example], list[Example]]:
    """What is left of `rows`, and about `size` examples, by their text alone and all copies of one together.

    With a `cluster` by that field alone, and whole clusters.
    """
    if cluster is None:
        return _taken(rows, [digest_of(example) for example in rows], size)
    return _taken(rows, [_digest({cluster: example.fields[cluster]}) for example in rows], size)


def _taken(train: list[Example], said: list[bytes], size: int) -> tuple[list[Example], list[Example]]:
    """What is left, and `size` examples or a few less: all copies of a text or none."""
    copies = defaultdict(list)
    for row, digest in enumerate(said):
        copies[digest].append(row)
    chosen: set[int] = set()
    for digest in sorted(copies):
        if len(chosen) + len(copies[digest]) <= size:
            chosen.update(copies[digest])
        if len(chosen) == size:
            break
    kept = [example for row, example in enumerate(train) if row not in chosen]
    return kept, [train[row] for row in sorted(chosen)]


def _repeats(said: Mapping[str, list[bytes]]) -> tuple[str, ...]:
    notes = []
    train = said["train"]
    if repeats := len(train) - len(set(train)):
        notes.append(f"{repeats:,} of {len(train):,} examples of train repeat an earlier one word for word.")
    for split, other in (("score", "train"), ("score", "select"), ("select", "train")):
        known = set(said[other])
        if leaks := sum(digest in known for digest in said[split]):
            notes.append(
                f"{leaks:,} of {len(said[split]):,} examples of {split} also occur in {other}, word for word."
            )
    return tuple(notes)
