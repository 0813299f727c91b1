"""Examples as a few tokens, and a learner that writes what it is told to: for methods that write examples."""

from collections.abc import Sequence
from typing import Any

import torch

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.prompting import Encoded, TokenSequence

END, BOS = 2, 1

FEW_WORDS = {"before": "\nSo:", "after": "\n"}
"""For `self-distillation`: the paper's words around a demonstration fill the tiny model's positions."""

ROOMY: dict[str, dict[str, Any]] = {
    "self-distillation": {"method": {"name": "self-distillation", **FEW_WORDS}},
    "stm": {"method": {"name": "stm", "share": 0.25}},
    "self-guide-replay": {
        "model": "quickstart-small",
        "method": {
            "name": "self-guide-replay",
            "candidates": 2,
            "synthesis": {"max_input_tokens": 12, "max_output_tokens": 8, "best_of": 3, "outputs": 3},
        },
    },
}
"""How a method is run, by its name, that asks more of the tiny model than it has: positions, or the sense
that makes some tokens far likelier than others."""


def choice(
    body: Sequence[int], gold: int, *, head: Sequence[int] = (5, 6), tail: Sequence[int] = (8, 9)
) -> Encoded:
    """A row of a task of two labels, whose answers are the tokens (20) and (21, 22)."""
    prompt = (*head, *body, *tail)
    candidates = tuple(TokenSequence((*prompt, *one), len(prompt)) for one in ((20,), (21, 22)))
    answer = TokenSequence((*candidates[gold].tokens, END), len(prompt))
    return Encoded(f"{body}", candidates, answer, prompt, gold, 0)


def target(body: Sequence[int], answer: Sequence[int], tail: Sequence[int] = (8,)) -> Encoded:
    prompt = (*body, *tail)
    return Encoded(f"{body}", (), TokenSequence((*prompt, *answer), len(prompt)), prompt, None, 0)


class Writes(Learner):
    """Writes what it is told to, in order, and notes what it was asked."""

    max_positions = None

    def __init__(self, *written: Sequence[int], ends: Sequence[int] = (END,)) -> None:
        super().__init__(torch.nn.Linear(1, 1), Letters(), 512)
        self.__dict__["ends"] = frozenset(ends)
        self.written = list(written)
        self.asked: list[tuple[tuple[int, ...], Decoding]] = []

    def write(self, prompts: Any, decoding: Decoding, **_: Any) -> list[Answer]:
        self.asked += [(prompt, decoding) for prompt in prompts]
        return [Answer("", tuple(self.written.pop(0))) for _ in prompts]


class Letters:
    """A tokenizer whose tokens are letters."""

    bos_token_id = BOS

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(chr(96 + token) for token in tokens)

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) % 50 + 100 for letter in text]
