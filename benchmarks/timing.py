"""Pieces of work timed in turn, A B A B …, so that what disturbs the machine disturbs all of them."""

import time
from collections.abc import Callable, Sequence
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
PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is timed."""
PRODUCTS = 8


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
    works: Sequence[Callable[[], object]], *, repeats: int, clock: Clock, title: str
) -> list[tuple[float, ...]]:
    """The seconds of each piece of work, timed `repeats` times in turn; each has run before."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in track(range(repeats), title, console=Console(stderr=True), transient=True):
        for taken, work in zip(seconds, works, strict=True):
            taken.append(timed(work, clock))
    return [tuple(taken) for taken in seconds]


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


def product_rate(device: torch.device, dtype: torch.dtype, clock: Clock) -> float:
    """The machine's own rate: operations a second of a large matrix product, the best of several."""
    n = PRODUCT[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    result = a @ b
    seconds = [timed(lambda: torch.mm(a, b, out=result), clock) for _ in range(PRODUCTS)]
    return 2 * n**3 / min(seconds)
