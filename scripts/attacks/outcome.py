"""What became of a run under a fault, in a line of JSON, and what it is compared by."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.attacks.child import HUNG, End

Files = Mapping[str, str]
"""Files below a folder, and a hash of each."""

BUG, MISTAKE, INTERRUPTED, TERMINATED = 70, 2, 130, 143
SAID = (MISTAKE, INTERRUPTED, TERMINATED)
"""The statuses that come with one sentence."""


@dataclass
class Outcome:
    """What was wrong after a fault; empty lists are how it should be.

    Attributes:
        lost: Committed stages that are gone or were made anew, and results that a resumed run did not give.
        silent: Other numbers with an exit status that says all is well.
        bugs: Exits with 70.
        tracebacks: What ended in one on stderr.
        odd: Any other end than those that are right: a hang, another status, no sentence or several.
        said: The last thing on stderr at each end.
    """

    lost: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def ended(self, end: End, right: Collection[int], when: str, *, sentence: bool = True) -> None:
        """Take note of how a command ended.

        Args:
            end: Its end.
            right: The statuses that are right here.
            when: Which of the commands it was.
            sentence: Whether an end before the work is done must say why, in one sentence.
        """
        lines = [line for line in end.said.splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        if last:
            self.said.append(last)
        if end.status == HUNG:
            self.odd.append(f"{when}: hangs")
        elif end.status == BUG:
            self.bugs.append(f"{when}: {_reason(last)}")
        elif end.status not in right:
            self.odd.append(f"{when}: ends with {end.status}. {last}")
        if "Traceback (most recent call last)" in end.said:
            self.tracebacks.append(f"{when}: {last}")
        elif sentence and end.status in SAID and (len(lines) != 1 or not last.startswith("forgetmenot: ")):
            self.odd.append(f"{when}: ends with {end.status} and {len(lines)} lines. {last}")

    def numbers(self, expected: Files, found: Files, when: str, *, resumed: bool = False) -> None:
        """Compare what a command that ended well has made with what an undisturbed one makes.

        Args:
            expected: Of the undisturbed one.
            found: What is there.
            when: Which of the commands it was.
            resumed: Whether it went on after a fault that is over: then other numbers are a lost result.
        """
        names = sorted(expected.keys() | found.keys())
        if other := [name for name in names if expected.get(name) != found.get(name)]:
            told = f"{when}: other {', '.join(other[:3])}{' and more' if other[3:] else ''}"
            self.silent.append(told)
            if resumed:
                self.lost.append(told)

    def kept(self, before: Files, now: Files, when: str) -> None:
        """See that what was committed before is there as it was."""
        if gone := [name for name, mark in before.items() if now.get(name) != mark]:
            self.lost.append(f"{when}: gone or made anew {', '.join(gone)}")

    def swept(self, run: Path, when: str) -> None:
        """See that a run that is through has left nothing half-written."""
        if left := [str(path.relative_to(run)) for path in sorted(run.rglob(".*")) if path.name != ".lock"]:
            self.odd.append(f"{when}: leaves {', '.join(left)}")

    @property
    def right(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.silent or self.bugs or self.tracebacks or self.odd)


def _reason(sentence: str) -> str:
    """The last line of the trace that a sentence names."""
    named = re.search(r"trace in (\S+)", sentence)
    if named is None or not Path(named[1]).is_file():
        return sentence
    return Path(named[1]).read_text(encoding="utf-8").strip().splitlines()[-1]


def hashes(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """The files that match, below a folder, and a hash of each."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def committed(run: Path) -> dict[str, str]:
    """The committed stages of a run, each with what changes when it is written anew."""
    return {
        path.parent.name: f"{path.stat().st_ino} {path.stat().st_mtime_ns}"
        for path in sorted(run.glob("stages/[0-9]*/scores.json"))
    }
