"""Schedules of replay: past examples among the new ones, or in replays further and further apart.

Feng et al. (2026), "FOREVER: Forgetting Curve-Inspired Memory Replay for Language Model Continual Learning",
ACL, arXiv 2601.03938. A past task is replayed on the days 1, 2, 4, 7, 15, 30, … of spaced repetition, and
what a day is the model says. With Δ_t = ‖θ_t − θ_{t−1}‖, how far step t moves the weights that learn,

    τ_t = Σ_{i ≤ t} Δ_i,    τ_day = τ_S,    replay j comes where first τ_t ≥ d_j · τ_day.

Theirs: the days, S = 24 steps, time that begins at 0 in every stage and is that of the weights that learn;
with Δ_t = 1 it is their "step-based" variant. Ours:
- The days after 30 double: 60, 120, …; the paper writes "…".
- A schedule changes when past examples come, and not how many: as many replays as the stage's new batches
  have days share the same examples evenly. Those that the model's time has not reached when the new ones are
  over come last. So schedules are compared at the same budget.
- A replay is made of batches of its own; replays are steps, and take time too.
- The paper's further term, a penalty on weights in the replays, is no part of a schedule.

The paper compares clocks and intervals (SuperNI, Qwen3-0.6B): average performance 42.5 by these days and this
time, 41.3 by steps, 40.1 with equal intervals, 37.2 with decreasing ones. Past examples among the new ones in
every batch, which is our `even`, do as well there as replays at equal intervals (34.6 and 34.7; 42.1 by the
whole method, its penalty included).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, takewhile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from forgetmenot.engine.batches import Shuffled

DAYS = (1, 2, 4, 7, 15, 30)


@dataclass(frozen=True)
class Spaced:
    """New batches, and between them replays, each on its day.

    Attributes:
        new: The batches of new examples, which are counted as if there were no others.
        past: The places of past examples.
        replays: The batches of each replay.
        day: How many steps are the first day.
        moved: What each step counts: how far it has moved the weights, as `fit` adds it; None for 1 each.
    """

    new: Shuffled
    past: range
    replays: list[list[list[int]]]
    day: int
    moved: list[float] | None

    def __len__(self) -> int:
        """How many steps there are."""
        return len(self.new) + sum(map(len, self.replays))

    def __iter__(self) -> Iterator[list[int]]:
        """The batches; what `moved` says decides from step to step."""
        new, replays = iter(self.new), deque(zip(days(), self.replays, strict=False))
        left, steps, time, first_day = len(self.new), 0, 0.0, 0.0
        while left or replays:
            if replays and (not left or (steps >= self.day and time >= replays[0][0] * first_day)):
                batches = replays.popleft()[1]
            else:
                batches, left = [self._among_all(next(new))], left - 1
            for batch in batches:
                yield batch
                time += 1 if self.moved is None else self.moved[steps]
                steps += 1
                if steps == self.day:
                    first_day = time

    def _among_all(self, batch: list[int]) -> list[int]:
        """The places of new examples among all."""
        return [k if k < self.past.start else k + len(self.past) for k in batch]


def days() -> Iterator[int]:
    """The days of replays, without an end."""
    return chain(DAYS, (DAYS[-1] * 2**k for k in count(1)))


def spaced(
    shuffled: Shuffled, past: range, day: int, random: np.random.Generator, *, model_time: bool
) -> Spaced:
    """Take past examples out of the batches of a stage, and make replays of them.

    Args:
        shuffled: The batches as they would come.
        past: The places of past examples.
        day: How many steps are the first day.
        random: Of the past examples' permutations, one for each epoch.
        model_time: Whether time is how far the weights have moved, and not the number of steps.
    """
    new, size = _without(shuffled, past), shuffled.batch_size
    waiting = np.concatenate([random.permutation(past) for _ in range(shuffled.epochs)])
    reached = len(list(takewhile(lambda one: one * day <= len(new), days())))
    replays = np.array_split(waiting, min(max(1, reached), len(waiting)))
    cut = [[part.tolist() for part in np.array_split(one, -(-len(one) // size))] for one in replays]
    return Spaced(new, past, cut, day, [] if model_time else None)


def _without(shuffled: Shuffled, past: range) -> Shuffled:
    """The same batches of new examples alone, counted as if there were no others."""
    new = [[k if k < past.start else k - len(past) for k in chat if k not in past] for chat in shuffled.chats]
    chats = tuple(tuple(chat) for chat in new if len(chat) > 1)
    return replace(shuffled, count=shuffled.count - len(past), chats=chats)
