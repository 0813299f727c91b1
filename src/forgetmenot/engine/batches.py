"""The batches of a stage: which examples each optimizer step learns from, drawn before they are packed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from forgetmenot.prompting.encoded import Encoded


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
        chats: Places that come one after another, where the first of them comes; see `chats_among`.
        moved: See `Batches`.
    """

    count: int
    batch_size: int
    epochs: int
    seed: int
    chats: tuple[tuple[int, ...], ...] = ()
    moved: None = None

    def __len__(self) -> int:
        """How many steps there are."""
        return -(-self.count // self.batch_size) * self.epochs

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch after another."""
        generator = torch.Generator().manual_seed(self.seed)
        whole = {chat[0]: chat for chat in self.chats}
        later = {place for chat in self.chats for place in chat[1:]}
        for _ in range(self.epochs):
            drawn = torch.randperm(self.count, generator=generator).tolist()
            order = [place for k in drawn if k not in later for place in whole.get(k, (k,))]
            for begin in range(0, self.count, self.batch_size):
                yield order[begin : begin + self.batch_size]


def chats_among(examples: Iterable[Encoded]) -> tuple[tuple[int, ...], ...]:
    """The places of examples that go on from one another: the answers of a chat, the first one first.

    All that one learns then stands in the prompt of the next, token by token, so that a batch which has both
    computes it once. A template that writes earlier answers otherwise than the last one (without their
    reasoning, say) makes no such chats, and nothing could be shared.
    """
    chats: list[list[int]] = []
    before: tuple[int, ...] = ()
    for place, example in enumerate(examples):
        now = example.answer
        if chats and len(before) <= now.start and now.tokens[: len(before)] == before:
            chats[-1].append(place)
        else:
            chats.append([place])
        before = now.tokens
    return tuple(tuple(chat) for chat in chats if len(chat) > 1)
