"""The batches of a stage: which examples each optimizer step learns from, drawn before they are packed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch


class Batches(Protocol):
    """The places of examples, for each optimizer step in turn."""

    @property
    def moved(self) -> list[float] | None:
        """How far each step has moved the weights that learn, ‖θ_t − θ_{t−1}‖, for an order that asks.

        `fit` adds to it after every step, before it asks for the next batch; None asks for nothing.
        """

    def __len__(self) -> int:
        """How many steps there are."""

    def __iter__(self) -> Iterator[list[int]]:
        """The batches, each made when it is asked for."""


@dataclass(frozen=True)
class Shuffled:
    """All examples in each epoch, every time in another permutation.

    Attributes:
        count: How many examples there are.
        batch_size: How many make a batch; an epoch's last has fewer.
        epochs: How often all come.
        seed: Of the permutations.
        moved: See `Batches`.
    """

    count: int
    batch_size: int
    epochs: int
    seed: int
    moved: None = None

    def __len__(self) -> int:
        """How many steps there are."""
        return -(-self.count // self.batch_size) * self.epochs

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch after another."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            order = torch.randperm(self.count, generator=generator).tolist()
            for begin in range(0, self.count, self.batch_size):
                yield order[begin : begin + self.batch_size]
