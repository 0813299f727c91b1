"""Demonstrations: solved examples in the prompt, before the example to answer."""

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from forgetmenot.errors import UserError
from forgetmenot.settings import NonNegativeInt, Seed, Settings
from forgetmenot.tasks import Example, Task, digest_of

Count = Annotated[NonNegativeInt, Field(le=1_000)]


class DemonstrationSettings(Settings):
    """How many demonstrations there are, and how they are drawn. A number alone is the `count`."""

    count: Count | dict[str, Count] = 0
    """How many each prompt has; or a map from tasks to how many, 0 for those that it does not name."""
    draw: Literal["fixed", "each"] = "fixed"
    """`fixed` shows the same ones before every example; `each` draws them for each example by itself."""
    balanced: bool = True
    """Whether every label is shown as often as any other, or once more; for tasks that choose among
    labels."""
    seed: Seed = 0
    """What the demonstrations are drawn by; `seed` has no part in it."""

    def count_for(self, task: str) -> int:
        """How many a task's prompts have."""
        return self.count.get(task, 0) if isinstance(self.count, Mapping) else self.count


def _count_alone(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


CountOrSettings = Annotated[
    DemonstrationSettings, BeforeValidator(_count_alone, json_schema_input_type=Count | DemonstrationSettings)
]
"""Settings, or a number: how many demonstrations."""


class Demonstrations:
    """Chooses the demonstrations of a task's examples, from `train` alone and never the asked example.

    What an example says decides whether it is the asked one, not its id: a copy of it in `train`, or of
    another demonstration, is passed over. Where one of the `fixed` demonstrations is itself asked (in
    training), the next of its label that was drawn takes its place.
    """

    def __init__(self, task: Task, settings: DemonstrationSettings):
        """Check that the task has enough to draw from.

        Raises:
            UserError: It is a conversation or plain text, or has too few training examples.
        """
        self.settings, self.count, self._name = settings, settings.count_for(task.name), task.name
        where = f"demonstrations: task {task.name!r}"
        if task.kind not in ("choice", "answer"):
            raise UserError(
                f"{where} is one of {task.kind}, which has no prompt to put them in; "
                "give `count` as a map that leaves it out."
            )
        if not task.train:
            raise UserError(
                f"{where} has no train split to take them from; give `count` as a map that leaves it out."
            )
        self._train = task.train
        self._balanced = settings.balanced and task.kind == "choice"
        self._pools: dict[str | None, list[int]] = defaultdict(list)
        for row, example in enumerate(task.train):
            self._pools[example.label if self._balanced else None].append(row)
        self._labels = list(task.labels) if self._balanced else [None]
        self._first = self._drawn(())  # what cannot be drawn for no example cannot be drawn at all
        self._said_first = {digest_of(example) for example in self._first}

    def before(self, asked: Example) -> list[Example]:
        """Return the demonstrations of this example, in order."""
        said = digest_of(asked)
        if self.settings.draw == "each":
            return self._drawn([zlib.crc32(said)], said)
        return self._drawn((), said) if said in self._said_first else self._first

    @property
    def fixed(self) -> list[Example]:
        """The demonstrations of an example that is none of them, drawn for all alike."""
        return self._first

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of all that decides what is shown: the settings and `train`."""
        settings = [self.count, self.settings.draw, self._balanced, self.settings.seed, self._name]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for example in self._train:
            digest.update(digest_of(example) + repr((example.label, example.target)).encode())
        return digest.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """What a reading records; `ids` are those of the fixed ones."""
        fixed = self.settings.draw == "fixed"
        return {
            "count": self.count,
            "draw": self.settings.draw,
            "balanced": self._balanced,
            "seed": self.settings.seed,
            "hash": self.hash,
            "ids": [example.id for example in self._first] if fixed else None,
        }

    def _drawn(self, salt: Sequence[int], *passed_over: bytes) -> list[Example]:
        """Draw `count` examples, none of which says what is passed over."""
        generator = np.random.default_rng([self.settings.seed, zlib.crc32(self._name.encode()), *salt])
        order = generator.permutation(len(self._labels))
        places = np.tile(order, -(-self.count // len(order)))[: self.count]
        said = set(passed_over)
        found = {
            k: self._from_pool(self._labels[k], int((places == k).sum()), generator, said) for k in order
        }
        shuffled = generator.permutation(places)
        return [self._train[found[k].pop(0)] for k in shuffled]

    def _from_pool(
        self, label: str | None, wanted: int, generator: np.random.Generator, said: set[bytes]
    ) -> list[int]:
        """Draw rows of a label, no two that say the same; `said` grows by what they say."""
        pool = self._pools[label]
        seed = int(generator.integers(2**32))  # the pool's own, so that passing one over shifts no other draw
        for most in (2 * wanted + 8, len(pool)):
            rows = np.random.default_rng(seed).choice(len(pool), min(most, len(pool)), replace=False)
            found: list[int] = []
            known = set(said)
            for row in rows:
                if len(found) == wanted:
                    break
                if (digest := digest_of(self._train[pool[row]])) not in known:
                    known.add(digest)
                    found.append(pool[row])
            if len(found) == wanted:
                said |= known
                return found
        of = "" if label is None else f" of {label!r}"
        raise UserError(
            f"demonstrations: task {self._name!r} has too few examples{of} in train for {self.count} "
            "that differ from one another and from the example to answer; set a smaller count."
        )
