"""What the base model predicts, kept so that it can be held against a later model's distributions.

A distribution has as many numbers as the vocabulary. So what is kept are the hidden states that they follow
from, in fp32 [predicted, width], one file for each task; and the LM head, [vocabulary, width] in its own
dtype. Most often a later model has the same head, which a hash tells; then the kept one is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forgetmenot.engine import ranks
from forgetmenot.paths import file_name
from forgetmenot.prompting import TokenSequence
from forgetmenot.record.seal import check_file, forget, written_sealed

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.head import KeptHead
    from forgetmenot.engine.learner import Learner

HEAD_NOT_APART = "this model's predictions do not follow from its last hidden states by the LM head alone"
NO_BASE = "what the base model predicts here is not kept: it was measured without this task, or on other data"
OTHER_HEAD = "the LM head is another than the base's, and that is not kept: a stage before still had it"


class Base:
    """The base model's predictions, as far as they are kept in a probe's folder.

    Attributes:
        head: The LM head of the model as it stands; None where predictions do not follow from it alone.
    """

    def __init__(self, folder: Path, learner: Learner) -> None:
        self.folder, self.learner = folder, learner
        self.head = learner.head() if learner.head_is_apart else None
        self.digest = _digest(self.head) if self.head is not None else ""

    def keep(self, tasks: Mapping[str, Sequence[TokenSequence]]) -> None:
        """Keep the model as it stands, which is the base."""
        from safetensors.torch import save_file

        if self.head is None:
            return
        for name, sequences in tasks.items():
            states = self.learner.states(sequences)
            if ranks.writes():
                with written_sealed(self._states(name, sequences)) as aside:
                    save_file({"states": states}, aside, {"head": self.digest})
        if ranks.writes():
            both = {"weight": self.head.weight, "bias": self.head.bias}
            values = {key: one.detach().contiguous() for key, one in both.items() if one is not None}
            with written_sealed(self._head(self.digest)) as aside:
                save_file(values, aside)
        ranks.wait()

    def keep_no_head(self) -> None:
        """Remove the base's head if the model as it stands, a later one, has the same."""
        if self.head is not None and ranks.writes():
            forget(self._head(self.digest))
            self._head(self.digest).unlink(missing_ok=True)

    def of(self, name: str, sequences: Sequence[TokenSequence]) -> tuple[Tensor, KeptHead] | str:
        """The base's states for these sequences and its head, or why they are not at hand."""
        from safetensors import safe_open

        if self.head is None:
            return HEAD_NOT_APART
        path = self._states(name, sequences)
        check_file(path)
        if not ranks.agreed(path.is_file):
            return NO_BASE
        with safe_open(path, framework="pt") as file:
            states, digest = file.get_tensor("states"), file.metadata()["head"]
        if digest == self.digest:
            return states, self.head
        check_file(self._head(digest))
        if not ranks.agreed(self._head(digest).is_file):
            return OTHER_HEAD
        return states, _read_head(self._head(digest), self.learner)

    def _states(self, name: str, sequences: Sequence[TokenSequence]) -> Path:
        asked = [(one.tokens, one.start) for one in sequences]
        return self.folder / f"{file_name(name, asked)}.safetensors"

    def _head(self, digest: str) -> Path:
        return self.folder / f"head-{digest}.safetensors"


def _read_head(path: Path, learner: Learner) -> KeptHead:
    from safetensors.torch import load_file

    from forgetmenot.engine.head import KeptHead

    values = load_file(path, device=str(learner.device))
    return KeptHead(values["weight"], values.get("bias"))


def _digest(head: KeptHead) -> str:
    """A hash of a head's values."""
    import torch

    digest = hashlib.sha256()
    for values in (head.weight, head.bias):
        if values is not None:
            digest.update(f"{values.dtype}{list(values.shape)}".encode())
            digest.update(values.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()[:16]
