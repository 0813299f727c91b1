"""Pairwise verdicts of a judge, saved so that none is requested twice."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forgetmenot.record.files import append_line, read_lines
from forgetmenot.synthesis.endpoint import Messages
from forgetmenot.synthesis.responder import Responder

Judgement = Literal["A", "B", "C"]
"""TRACE's protocol: the first answer is better, the second is, or neither."""

VERSION = 1
"""Of the judge's instructions and of how a reply is read; verdicts of another version are not used."""

_VERDICT = re.compile(r"\[\[([ABC])\]\]")


@dataclass(frozen=True)
class PairComparison:
    """A question to the judge.

    Attributes:
        criterion: What makes an answer the better one.
        request: What both were asked.
        first: The answer shown as A.
        second: The answer shown as B.
    """

    criterion: str
    request: str
    first: str
    second: str

    def messages(self) -> Messages:
        """The judge's instructions; the wording is our own, the verdicts are TRACE's."""
        return [
            {
                "role": "system",
                "content": "You compare the answers of two assistants to the same request. "
                f"{self.criterion} Neither the order of the answers nor their length counts. First give your "
                'reasons in a few sentences. Then end with your verdict in exactly this form: "[[A]]" if '
                'assistant A is better, "[[B]]" if assistant B is better, "[[C]]" if they are equally good.',
            },
            {
                "role": "user",
                "content": f"[Request]\n{self.request}\n\n"
                f"[Answer of assistant A]\n{self.first}\n[End of A]\n\n"
                f"[Answer of assistant B]\n{self.second}\n[End of B]",
            },
        ]

    def key(self, judge: str) -> str:
        """A hash of all that the verdict depends on."""
        content = [VERSION, judge, *self.__dict__.values()]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def read_judgement(reply: str) -> Judgement | None:
    """The one verdict in a reply; None where there is none, or several that differ."""
    found = set(_VERDICT.findall(reply))
    return found.pop() if len(found) == 1 else None


def _kept(row: dict[str, Any]) -> tuple[str, Judgement | None]:
    return row["key"], row["verdict"]


class Judgements:
    """A file of verdicts, one JSON object a line: key, judge, verdict and the whole reply.

    A reply without a verdict is kept as well, with null: it is counted separately and not requested again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Judgement | None] = {}
        self._known.update(read_lines(path, _kept))

    def of(self, judge: Responder, comparisons: Sequence[PairComparison]) -> list[Judgement | None]:
        """The verdict on each comparison; only what is not in the file is requested, and saved as it comes.

        Raises:
            UserError: If the judge cannot be asked; what it said until then is kept.
        """
        keys = [comparison.key(judge.name) for comparison in comparisons]
        new = {
            key: one for key, one in zip(keys, comparisons, strict=True) if key not in self._known
        }  # each once
        if new:
            asked = list(new)
            for k, reply in judge.complete_all([one.messages() for one in new.values()]):
                judgement = read_judgement(reply)
                append_line(
                    self.path, {"key": asked[k], "judge": judge.name, "verdict": judgement, "reply": reply}
                )
                self._known[asked[k]] = judgement
        return [self._known[key] for key in keys]
