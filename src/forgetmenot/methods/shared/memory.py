"""A memory of past examples: which are kept, how a draw is spread over tasks, and how it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetmenot.prompting.encoded import Encoded, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

Keep = Literal["random", "class-balanced", "herding"]


def choose(
    learner: Learner, examples: Sequence[Encoded], count: int, keep: Keep, random: np.random.Generator
) -> list[Encoded]:
    """At most `count` of a task's examples, to be remembered.

    `random` draws without replacement, which is what a reservoir over the task's stream ends with.
    `class-balanced` and `herding` take as many of each label; a task without labels is one class.
    """
    classes: dict[int | None, list[int]] = {}
    for k, example in enumerate(examples):
        classes.setdefault(None if keep == "random" else example.gold, []).append(k)
    shares = even_shares(count, [len(members) for members in classes.values()])
    chosen = []
    for members, share in zip(classes.values(), shares, strict=True):
        if keep == "herding":
            prompts = [examples[k].prompt or examples[k].answer.tokens for k in members]
            chosen += [members[k] for k in herd(learner.hidden(prompts), share)]
        else:
            chosen += random.permutation(members)[:share].tolist()
    return [examples[k] for k in chosen]


def even_shares(count: int, available: Sequence[int]) -> list[int]:
    """Divide `count` as evenly as what is available allows; what one cannot give, the others do."""
    shares = [0] * len(available)
    for done, k in enumerate(sorted(range(len(available)), key=available.__getitem__)):
        shares[k] = min(available[k], count // (len(available) - done))
        count -= shares[k]
    return shares


def herd(features: Tensor, count: int) -> list[int]:
    """Rows whose running mean stays nearest to the mean of all: iCaRL, Rebuffi et al. 2017, algorithm 4.

    Each next row minimises ‖μ − (φ(x) + Σ φ(chosen)) / k‖ over unit-length features φ. The mean μ is not made
    unit-length again, so that what is chosen can reach it.

    Args:
        features: [examples, width].
        count: How many rows; at most all.
    """
    import torch
    import torch.nn.functional as F

    unit = F.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros(unit.shape[1], dtype=unit.dtype)
    chosen: list[int] = []
    for k in range(1, count + 1):
        nearness = unit @ (k * mean - total)  # the distance, less what all rows have in common
        nearness[chosen] = -torch.inf
        chosen.append(int(nearness.argmax()))
        total += unit[chosen[-1]]
    return chosen


def answer_lengths(examples: Sequence[Encoded]) -> list[int]:
    """How many tokens each example's answer has, its end included."""
    return [len(example.answer.tokens) - example.answer.start for example in examples]


def to_plain(example: Encoded) -> list[Any]:
    """An example as plain data, the tokens that its answers have in common once."""
    start = example.answer.start
    head = example.answer.tokens[:start]
    assert all(c.start == start and c.tokens[:start] == head for c in example.candidates)
    tails = [candidate.tokens[start:] for candidate in example.candidates]
    prompt = None if example.prompt == head else example.prompt
    return [example.id, head, prompt, example.answer.tokens[start:], tails, example.gold, example.cut]


def from_plain(row: Sequence[Any]) -> Encoded:
    """Read back what `to_plain` gave, also after JSON made lists of its tuples."""
    name, head, prompt, answer, tails, gold, cut = row

    def sequence(tail: Sequence[int]) -> TokenSequence:
        return TokenSequence((*head, *tail), len(head))

    candidates = tuple(sequence(tail) for tail in tails)
    return Encoded(name, candidates, sequence(answer), tuple(head if prompt is None else prompt), gold, cut)
