"""The log of answers: an interrupted evaluation generates none of them twice, and scores no pack twice."""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.pack import Arrangement
from forgetmenot.prompting import EncodedExamples
from forgetmenot.record.files import append_line, read_lines

EVERY = 5.0
"""The seconds for which scored packs wait until they are written: reading them waits for the device."""


class AnswerLog:
    """A file beside a stage that is being scored, one line for each batch; the run removes it at its end.

    Each of several processes has a file of its own, with the batches that are dealt to it. Processes that
    share one model's weights keep none: they must make the same passes.

    Args:
        folder: Of the stage.

    Attributes:
        part: Which part of the method answers, where it routes.
        said: Sentences on lines that were damaged; what they held is computed again.
    """

    def __init__(self, folder: Path) -> None:
        number = f".{ranks.rank()}" if ranks.rank() else ""
        self.path = folder.with_name(f".{folder.name}.answers{number}.jsonl")
        self.kept: dict[str, list[Any]] = {}
        self.said: list[str] = []
        self.part = ""
        self._weights: str | None = None
        if not shards.wanted():
            for key, rows in read_lines(self.path, _line, self.said):
                self.kept.setdefault(key, []).extend(rows)

    def begin(
        self, model: Any, asked: EncodedExamples, decoding: Decoding
    ) -> tuple[dict[int, Answer], Callable[[Mapping[int, Answer]], None]]:
        """The answers that are there already, by the example's place, and what keeps further ones.

        They are those of the same weights, prompts and settings: a stage that was trained again ends in the
        same weights, or its answers start again.
        """
        if shards.wanted():
            return {}, lambda answers: None
        digest = self._begun(model, decoding, asked.ids)
        for name, array in sorted(asked.arrays.items()):
            digest.update(name.encode() + array.tobytes())
        key = digest.hexdigest()[:32]
        there = dict(_answer(*row) for row in self.kept.get(key, []))

        def keep(answers: Mapping[int, Answer]) -> None:
            rows = [[asked.ids[k], a.text, a.tokens, a.margins] for k, a in answers.items() if a.finite]
            append_line(self.path, [key, rows], checked=True)

        return {k: there[name] for k, name in enumerate(asked.ids) if name in there}, keep

    @contextmanager
    def parts(self, model: Any, arranged: Arrangement, *, greedy: bool) -> Iterator["_Parts"]:
        """The packs of an arrangement that are scored already, and what keeps further ones: see `begin`."""
        digest = self._begun(model, arranged.prefix, greedy)
        for places, packed in arranged.packs:
            digest.update(repr(places).encode())
            for array in packed.arrays:
                digest.update(f"{array.shape}".encode() + array.tobytes())
        key = digest.hexdigest()[:32]
        parts = _Parts(self.path, key, {pack: torch.tensor(row) for pack, row in self.kept.get(key, [])})
        try:
            yield parts
        finally:
            parts.write()

    @contextmanager
    def with_other_weights(self) -> Iterator[None]:
        """What is kept within is of weights that are not the stage's, as after a training for one task."""
        of_the_stage, self._weights = self._weights, None
        try:
            yield
        finally:
            self._weights = of_the_stage

    def _begun(self, model: Any, *described: Any) -> Any:
        """A hash of the weights, of who answers, and of what is asked.

        The weights stay while a stage is scored but `with_other_weights`, so they are read once.
        """
        if self._weights is None:
            self._weights = repr(_sums(model))
        return hashlib.sha256(repr((self._weights, self.part, described)).encode())


class _Parts:
    """The scored packs of one arrangement; see `forgetmenot.engine.kept_parts.KeptParts`."""

    def __init__(self, path: Path, key: str, done: Mapping[int, Tensor]) -> None:
        self.path, self.key, self.done = path, key, done
        self._waiting: dict[int, Tensor | list[Any]] = {}
        self._written = time.monotonic()

    def add(self, pack: int, values: Tensor) -> None:
        """Keep what a pack gave."""
        # On a CPU as numbers at once: see `Learner._scored`.
        self._waiting[pack] = values.double().tolist() if values.device.type == "cpu" else values
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self._waiting:
            rows = [
                [k, v.double().tolist() if isinstance(v, Tensor) else v] for k, v in self._waiting.items()
            ]
            append_line(self.path, [self.key, rows], checked=True)
            self._waiting = {}
        self._written = time.monotonic()


def _line(content: Any) -> tuple[str, list[Any]]:
    """The key and the rows in a line of the log: answers, or what packs gave; other content raises."""
    key, rows = content
    for row in rows:
        if len(row) == 2:
            int(row[0]), torch.tensor(row[1])
        else:
            _answer(*row)
    return str(key), rows


def _answer(name: str, text: str, tokens: Sequence[int], margins: Sequence[float]) -> tuple[str, Answer]:
    return name, Answer(text, tuple(tokens), tuple(margins))


@torch.no_grad()
def _sums(model: Any) -> list[tuple[str, object]]:
    """A checksum of each parameter."""
    # NumPy would hold on to storage that a sharded model has to let go of.
    by_bytes = not shards.is_sharded(model)
    return [(name, _sum(parameter, by_bytes=by_bytes)) for name, parameter in model.named_parameters()]


def _sum(values: Tensor, *, by_bytes: bool) -> object:
    """Of its bytes; where they would have to come from a GPU, or not as bytes, two sums over it."""
    if by_bytes and values.device.type == "cpu":
        return zlib.crc32(values.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return float(values.sum(dtype=torch.float64)), float(values.double().square().sum())
