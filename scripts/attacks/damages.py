"""Every file of a finished run and of three half-finished ones damaged in nine ways, then a verb."""

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scripts.attacks.child import forked
from scripts.attacks.ground import MOMENTS, Case, Ground
from scripts.attacks.injection import die_at
from scripts.attacks.jobs import VERBS
from scripts.attacks.outcome import Outcome, committed, hashes

ATTACK = "damages"
ON_FINISHED = ("run", "report", "score", "export", "compare")
HALF = {
    "between stages": r"before mkdir stages/\.\d\d-[^/]*\.writing",
    "in training": r"after rename to stages/\.\d\d-[^/]*\.midway\.safetensors",
    "in scoring": r"before open stages/\.\d\d-[^/]*\.writing/predictions\.parquet",
}
"""Where a half-finished run stands: it was killed the last time that such a moment came."""

NO_NUMBERS = ("run/environment.json", "run/events.jsonl", "run/timing.json")
"""They say when and on what; the page without them, or with others, has the same numbers."""


def cases(ground: Ground) -> Iterator[list[Case]]:
    """A case for each file and way, in each state of a run, with each verb that fits."""
    ground.finished()
    ground.run("ewc")
    states = {"finished": ON_FINISHED, **dict.fromkeys(HALF, ("run",))}
    for state, verbs in states.items():
        folder = ground.kept(state, partial(_half, ground, state))
        files = [path.relative_to(folder) for path in sorted((folder / "run").rglob("*")) if path.is_file()]
        for verb in verbs:
            pairs = [(file, way) for file in files for way in ways(folder / file)]
            random.Random(f"{state} {verb}").shuffle(
                pairs
            )  # the first are a fair draw, where not all are played
            yield [
                Case(
                    ATTACK,
                    f"{state}, then {verb}",
                    f"{file} {way}",
                    len(pairs),
                    partial(damage, ground, state, verb, file, way),
                )
                for file, way in pairs
            ]


def damage(ground: Ground, state: str, name: str, file: Path, way: str) -> Outcome:
    """Damage a file and run a verb: a sentence, or the same numbers."""
    verb, outcome = VERBS[name], Outcome()
    expected = hashes(ground.finished() if name == "run" else ground.verb(name), verb.makes)
    now = ground.clean()
    ground.put(state, ["run", "other"] if state == "finished" else ["run"])
    WAYS[way](now / file)
    damaged = hashes(now, verb.makes)
    before = {k: v for k, v in committed(now / "run").items() if k not in file.parts}
    end = forked(verb.command(now))
    outcome.ended(end, (*verb.done, 2), "then")
    if end.status not in verb.done:
        outcome.kept(before, committed(now / "run"), "then")
    elif not (name == "report" and str(file) in NO_NUMBERS):
        found, own = hashes(now, verb.makes), str(file)
        if own != "run/results.json" and found.get(own) == damaged.get(own):
            expected.pop(own, None)  # it was not read; what reads it is another case
            found.pop(own, None)
        outcome.numbers(expected, found, "then")
    return outcome


def ways(path: Path) -> list[str]:
    """The ways in which a file can be damaged: an empty one has no bits."""
    return [way for way in WAYS if path.stat().st_size or way in ("deleted", "garbage", "a folder")]


def _half(ground: Ground, state: str, now: Path) -> None:
    _, moments = ground.run("ewc")
    last = max(k for k, line in enumerate(moments, 1) if re.fullmatch(HALF[state], line))
    forked(VERBS["run"].command(now), lambda: die_at(last, now / "run", now / MOMENTS))


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1 << 6  # of a number's last byte, much of its exponent
    path.write_bytes(content)


def _garbage(path: Path) -> None:
    size = max(path.stat().st_size, 16)
    path.write_bytes(random.Random(path.name).randbytes(size))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped at the start": lambda path: _flip(path, 0),
    "a bit flipped in the middle": lambda path: _flip(path, 0.5),
    "a bit flipped at the end": lambda path: _flip(path, 1),
    "garbage": _garbage,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": _folder,
}
