"""Pairwise verdicts of a judge, kept so that nothing judged is asked twice."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from forgetmenot.synthesis.endpoint import Messages

Verdict = Literal["A", "B", "C"]
"""TRACE's protocol: the first answer is better, the second is, or neither."""

VERSION = 1
"""Of the judge's instructions and of how a reply is read; verdicts of another version are not taken up."""

_VERDICT = re.compile(r"\[\[([ABC])\]\]")


class Judge(Protocol):
    """Who is asked.

    Attributes:
        name: What its verdicts are kept under.
    """

    name: str

    def replies(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Each conversation's number and the reply to it, as they come."""


@dataclass(frozen=True)
class Comparison:
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
        """As it is put to the judge; the words are ours, the verdicts TRACE's."""
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


def read_verdict(reply: str) -> Verdict | None:
    """The one verdict in a reply; None where there is none, or several that differ."""
    found = set(_VERDICT.findall(reply))
    return found.pop() if len(found) == 1 else None


class Verdicts:
    """A file of verdicts, one JSON object a line: key, judge, verdict and the whole reply.

    A line that a kill cut short is passed over, and its comparison asked again. A reply without a verdict is
    kept as well, with null: it is counted apart and not asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Verdict | None] = {}
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    row = json.loads(line)
                    self._known[row["key"]] = row["verdict"]
                except (ValueError, LookupError, TypeError):
                    continue

    def of(self, judge: Judge, comparisons: Sequence[Comparison]) -> list[Verdict | None]:
        """The verdict on each comparison; only what is not in the file is asked, and kept as it comes.

        Raises:
            UserError: If the judge cannot be asked; what it said until then is kept.
        """
        keys = [comparison.key(judge.name) for comparison in comparisons]
        new = {
            key: one for key, one in zip(keys, comparisons, strict=True) if key not in self._known
        }  # each once
        if new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_last_line(self.path)
            asked = list(new)
            with self.path.open("a", encoding="utf-8") as stream:
                for k, reply in judge.replies([one.messages() for one in new.values()]):
                    row = {
                        "key": asked[k],
                        "judge": judge.name,
                        "verdict": read_verdict(reply),
                        "reply": reply,
                    }
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                    stream.flush()
                    self._known[asked[k]] = row["verdict"]  # type: ignore[assignment]
        return [self._known[key] for key in keys]


def _end_last_line(path: Path) -> None:
    """Begin a new line after one that a kill cut short."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as stream:
            stream.write(b"\n")
