"""Two pieces of work timed in turn: A B A B …, so that what disturbs the machine disturbs both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal, TypeVar

import torch
from rich.console import Console
from rich.progress import track

Choice = TypeVar("Choice")
Clock = Literal["wall", "cpu"]
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Pairs:
    """Seconds that each side took, pair after pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times longer the peer took, in each pair; ascending."""
        return sorted(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return median(self.ratios)


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int, clock: Clock, title: str
) -> Pairs:
    """Time both sides `pairs` times in turn; each has run before."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in track(range(pairs), title, console=Console(stderr=True), transient=True):
        for side, work in zip(seconds, (ours, theirs), strict=True):
            side.append(timed(work, clock))
    return Pairs(*map(tuple, seconds))


def timed(work: Callable[[], object], clock: Clock) -> float:
    """Seconds on the clock; of the processor they are those of all threads together."""
    began = _CLOCKS[clock]()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return _CLOCKS[clock]() - began


def fastest(choices: list[Choice], work: Callable[[Choice], object], clock: Clock, title: str) -> Choice:
    """The choice with which the work takes least: each is tried once, after a warm-up."""
    work(choices[0])
    tried = track(choices, title, console=Console(stderr=True), transient=True)
    seconds = [timed(partial(work, choice), clock) for choice in tried]
    return choices[seconds.index(min(seconds))]
