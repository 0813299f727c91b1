"""Disks that fill up: a small tmpfs, limited files, no room for temporary files; then room again.

A tmpfs needs root. Where `mount` is refused, its cases are left out, and that is said.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from scripts.attacks.child import forked, temporary_files_in
from scripts.attacks.ground import Case, Ground
from scripts.attacks.jobs import VERBS
from scripts.attacks.outcome import Outcome, committed, hashes

ATTACK = "disks"
PAGE = 4096
LEFT = (0, 4, 16, 64, 256)
"""KB that a full folder of temporary files still has."""


def cases(ground: Ground) -> Iterator[list[Case]]:
    """Cases of rising size for each verb."""
    mounts = _mounts(ground.work / "tmpfs")
    if not mounts:
        print("mount is refused here: the disks of rising size are left out; run as root to have them.")
    for name in VERBS:
        needed, largest = _needs(ground, name)
        steps = 6 if name == "study" else 24  # a study starts real processes
        if mounts:
            pages = sorted({1 + needed * 3 // 2 * k // steps for k in range(steps)})
            yield _cases(
                f"{name} on a tmpfs", [(f"{n} pages", partial(fill, ground, name, n)) for n in pages]
            )
        sizes = sorted({int(largest ** ((k + 1) / steps)) for k in range(steps)})
        yield _cases(
            f"{name}, files limited", [(f"{n} bytes", partial(limit, ground, name, n)) for n in sizes]
        )
        if mounts:
            yield _cases(
                f"{name}, temporary files full",
                [(f"{left} KB", partial(crowd, ground, name, left)) for left in LEFT],
            )


def fill(ground: Ground, name: str, pages: int) -> Outcome:
    """A verb on a disk that has so many pages beside what the verb needs, and again with room."""
    kept = [ground.work / "undisturbed" / "finished" / part for part in VERBS[name].needs]
    held = sum(_pages(path) for path in kept)
    now = ground.clean()
    with _tmpfs(now, (held + pages) * PAGE):
        ground.put("finished", VERBS[name].needs)
        return _twice(
            ground,
            name,
            lambda: None,
            lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(now)], check=True),
        )


def limit(ground: Ground, name: str, size: int) -> Outcome:
    """A verb that can write no file of more than so many bytes, and again without the limit."""
    ground.clean()
    ground.put("finished", VERBS[name].needs)
    return _twice(ground, name, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


def crowd(ground: Ground, name: str, left: int) -> Outcome:
    """A verb whose folders of temporary files and of the cache have so few KB, and again with room."""
    ground.clean()
    ground.put("finished", VERBS[name].needs)
    folder = ground.work / "tmpfs"
    folder.mkdir(exist_ok=True)

    def prepare() -> None:
        temporary_files_in(folder)()
        os.environ["FORGETMENOT_CACHE"] = str(folder / "cache")

    with _tmpfs(folder, 1 << 20):
        (folder / "full").write_bytes(b"\0" * ((1 << 20) - 1024 * left))
        return _twice(ground, name, prepare)


def _twice(
    ground: Ground, name: str, prepare: Callable[[], None], mend: Callable[[], object] = lambda: None
) -> Outcome:
    """Run a verb without room, then with it."""
    verb, now, outcome = VERBS[name], ground.now, Outcome()
    expected, command = hashes(ground.verb(name), verb.makes), verb.command(now)
    end = forked(command, prepare)
    told = name != "study"  # which tells in its table what ended its runs
    outcome.ended(end, (*verb.done, 2), "without room", sentence=told)
    if end.status in verb.done:
        outcome.numbers(expected, hashes(now, verb.makes), "without room")
        return outcome
    before = committed(now / "run")
    mend()
    end = forked(command)
    outcome.ended(end, verb.done, "with room")
    outcome.kept(before, committed(now / "run"), "with room")
    if end.status in verb.done:
        outcome.numbers(expected, hashes(now, verb.makes), "with room", resumed=True)
    return outcome


def _cases(setting: str, plays: list[tuple[str, Callable[[], Outcome]]]) -> list[Case]:
    return [Case(ATTACK, setting, name, len(plays), play) for name, play in plays]


def _needs(ground: Ground, name: str) -> tuple[int, int]:
    """The pages that a verb writes, and the size of its largest file."""
    folder = ground.verb(name)
    held = sum(_pages(ground.finished() / part) for part in VERBS[name].needs)
    written = {folder / made for made in hashes(folder, VERBS[name].makes)}
    written |= {path for path in folder.rglob("*") if path.is_file() and not _held(ground, folder, path)}
    largest = max(path.stat().st_size for path in written)
    return max(_pages(folder) - held, 8), largest


def _held(ground: Ground, folder: Path, path: Path) -> bool:
    """Whether a file was there before its verb, as it is."""
    before = ground.finished() / path.relative_to(folder)
    return before.is_file() and before.read_bytes() == path.read_bytes()


def _pages(folder: Path) -> int:
    return sum(-(-path.stat().st_size // PAGE) for path in folder.rglob("*") if path.is_file())


@contextmanager
def _tmpfs(folder: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mounts(folder: Path) -> bool:
    """Whether a tmpfs can be had here."""
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("mount") is None:
        return False
    if os.path.ismount(folder):  # a case before was killed
        subprocess.run(["umount", str(folder)], check=True)
    tried = ["mount", "-t", "tmpfs", "-o", f"size={PAGE}", "tmpfs", str(folder)]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True
