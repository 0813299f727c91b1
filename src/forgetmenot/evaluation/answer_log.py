"""The log of generated answers: an interrupted evaluation generates none of them twice."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from forgetmenot.engine import ranks
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.prompting import EncodedExamples
from forgetmenot.record.files import append_line, read_lines


class AnswerLog:
    """A file beside a stage that is being scored, one line for each batch; the run removes it at its end.

    A run in several processes keeps none, since each of them writes its own batches.

    Attributes:
        said: Sentences on lines that were damaged; what they held is generated again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.kept: dict[str, dict[str, Answer]] = {}
        if ranks.world_size() == 1:
            self._read()

    def begin(
        self, model: Any, asked: EncodedExamples, decoding: Decoding
    ) -> tuple[dict[int, Answer], Callable[[Mapping[int, Answer]], None]]:
        """The answers that are there already, by the example's place, and what keeps further ones.

        They are those of the same weights, prompts and settings: a stage that was trained again ends in the
        same weights, or its answers start again.
        """
        if ranks.world_size() > 1:
            return {}, lambda answers: None
        key = _key(model, asked, decoding)
        there = self.kept.get(key, {})

        def keep(answers: Mapping[int, Answer]) -> None:
            rows = [[asked.ids[k], a.text, a.tokens, a.margins] for k, a in answers.items() if a.finite]
            append_line(self.path, [key, rows], checked=True)

        return {k: there[name] for k, name in enumerate(asked.ids) if name in there}, keep

    def _read(self) -> None:
        for key, found in read_lines(self.path, _answers, self.said):
            self.kept.setdefault(key, {}).update(found)


def _answers(line: Any) -> tuple[str, dict[str, Answer]]:
    """The key and the answers in a line of the log."""
    key, rows = line
    found = {name: Answer(text, tuple(tokens), tuple(margins)) for name, text, tokens, margins in rows}
    return str(key), found


def _key(model: Any, asked: EncodedExamples, decoding: Decoding) -> str:
    """A hash of all that the answers depend on; of the weights their sums and sums of squares."""
    digest = hashlib.sha256(repr((decoding, asked.ids, _sums(model))).encode())
    for name, array in sorted(asked.arrays.items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:32]


@torch.no_grad()
def _sums(model: Any) -> Sequence[tuple[str, float, float]]:
    return [
        (name, float(p.sum(dtype=torch.float64)), float(p.double().square().sum()))
        for name, p in model.named_parameters()
    ]
