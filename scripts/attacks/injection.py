"""Dying at the n-th change that a process makes on the disk under a folder."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
"""Python's audit events of changes, beside "open"; each comes just before the change."""


def die_at(number: int | None, folder: Path, log: Path) -> None:
    """From now on log each moment at which `folder` is about to change, and die by SIGKILL at one of them.

    The moments are those before each opening for writing, rename, removal, making of a folder and fsync, and
    those after each rename. What a library in another language writes shows by the fsync that follows.

    Args:
        number: Of the moment, from 1; None to live.
        folder: What counts; a moment elsewhere does not.
        log: Gets a line for each moment, outside the folder.
    """
    root = os.path.abspath(folder)  # noqa: PTH100 (a hook on every path: no Path for each)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = 0

    def moment(what: str, path: str) -> None:
        nonlocal count
        if path != root and not path.startswith(root + os.sep):
            return
        count += 1
        os.write(stream, f"{what} {os.path.relpath(path, root)}\n".encode())
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                moment("before open", _full(path))
        elif event in CHANGES:
            path = _full(arguments[0], arguments[-1])
            if os.path.lexists(path) != (event == "os.mkdir"):  # else nothing is going to change
                moment(f"before {event.removeprefix('os.')}", path)

    def after(change: Callable[..., None]) -> Callable[..., None]:
        def changed(source: Any, target: Any, **named: Any) -> None:
            change(source, target, **named)
            moment("after rename to", _full(target))

        return changed

    fsync = os.fsync

    def synced(descriptor: int) -> None:
        moment("before fsync", os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        fsync(descriptor)

    sys.addaudithook(heard)
    os.rename, os.replace, os.fsync = after(os.rename), after(os.replace), synced  # type: ignore[assignment]


def _full(path: Any, folder: int = -1) -> str:
    """A path written out, where it may be relative to an open folder."""
    path = os.fsdecode(path)
    start = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()  # noqa: PTH109, PTH115
    return os.path.normpath(os.path.join(start, path))  # noqa: PTH118
