"""Where the attacks take place: the folder of the present case, and what undisturbed commands left."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scripts.attacks.child import forked
from scripts.attacks.injection import die_at
from scripts.attacks.jobs import NUMBERS, VERBS, run_command
from scripts.attacks.outcome import Files, Outcome, hashes

T = TypeVar("T")
MOMENTS = "moments.txt"


@dataclass(frozen=True)
class Case:
    """One fault, or a few in a row, and the commands that meet it.

    Attributes:
        attack: kills, signals, disks or damages.
        setting: What is attacked; a row of the table.
        name: Which of the setting's cases it is.
        of: How many the setting has.
        play: Does it.
    """

    attack: str
    setting: str
    name: str
    of: int
    play: Callable[[], Outcome]

    @property
    def key(self) -> tuple[str, str, str]:
        """What no other case has."""
        return self.attack, self.setting, self.name


class Ground:
    """A folder for one attack's work: `now/`, always the same path, and `undisturbed/`.

    Args:
        work: The folder.
    """

    def __init__(self, work: Path) -> None:
        self.work = work.absolute()
        self.now = self.work / "now"

    def clean(self) -> Path:
        """Empty the folder of the present case."""
        if os.path.ismount(self.now):  # a case before was killed
            subprocess.run(["umount", str(self.now)], check=True)
        shutil.rmtree(self.now, ignore_errors=True)
        self.now.mkdir(parents=True)
        return self.now

    def put(self, name: str, parts: Sequence[str] = ("run",)) -> None:
        """Copy parts of what was kept into the folder of the present case."""
        for part in parts:
            shutil.copytree(self.work / "undisturbed" / name / part, self.now / part)

    def kept(self, name: str, make: Callable[[Path], None]) -> Path:
        """What was made undisturbed, in the folder of the present case, and moved away; made once."""
        folder = self.work / "undisturbed" / name
        if not folder.exists():
            make(self.clean())
            folder.parent.mkdir(exist_ok=True)
            self.now.rename(folder)
        return folder

    def run(self, setting: str) -> tuple[Files, list[str]]:
        """An undisturbed run of a setting: the hashes of its numbers, and its moments (see `die_at`)."""
        folder = self.kept(f"run of {setting}", lambda now: _run(setting, now))
        return hashes(folder, NUMBERS), (folder / MOMENTS).read_text(encoding="utf-8").splitlines()

    def verb(self, name: str) -> Path:
        """The folder in which a verb has done its work on finished runs undisturbed."""
        verb = VERBS[name]

        def make(now: Path) -> None:
            self.put("finished", verb.needs)
            end = forked(verb.command(now))
            if end.status not in verb.done:
                raise RuntimeError(f"fmn {name} fails undisturbed: {end.said}")

        self.finished()
        return self.kept(f"verb {name}", make)

    def finished(self) -> Path:
        """The folder of two finished runs, `run/` and `other/`."""

        def make(now: Path) -> None:
            for setting, run in (("ewc", "run"), ("sequential", "other")):
                if (end := forked(run_command(setting, now / run))).status:
                    raise RuntimeError(f"a run of {setting} fails undisturbed: {end.said}")

        return self.kept("finished", make)


def _run(setting: str, now: Path) -> None:
    end = forked(run_command(setting, now / "run"), lambda: die_at(None, now / "run", now / MOMENTS))
    if end.status:
        raise RuntimeError(f"a run of {setting} fails undisturbed: {end.said}")


def spread(cases: Sequence[T], most: int | None) -> Iterator[T]:
    """At most so many, evenly spread, the first and the last among them."""
    if most is None or most >= len(cases):
        yield from cases
    else:
        for k in range(most):
            yield cases[round(k * (len(cases) - 1) / max(1, most - 1))]
