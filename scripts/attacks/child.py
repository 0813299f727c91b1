"""Commands in child processes: forked from this one, which has imported everything, or real ones."""

import fcntl
import io
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIMIT = 600.0
"""The seconds after which a command hangs."""
HUNG = 1000
"""The status of a command that hangs, which no process can have."""


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        status: Its exit status, below 0 for the signal that killed it.
        said: What stood on stderr.
    """

    status: int
    said: str


def warm() -> None:
    """Import what a run needs, and run once, so that forked children begin at once."""
    import forgetmenot

    with tempfile.TemporaryDirectory() as folder:
        small = {"model": "quickstart-small", "tasks": "qs-sentiment", "training.limit": 8}
        forgetmenot.run({**small, "evaluation.limit": 4, "output": f"{folder}/run"})


def forked(arguments: Sequence[str], prepare: Callable[[], None] = lambda: None) -> End:
    """Run `fmn` with arguments in a forked child.

    Args:
        arguments: Of the command line.
        prepare: Called in the child beforehand.
    """
    reading, writing = os.pipe()  # no file: a limit of the files' size would cut what is said, too
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)

    def child() -> None:
        from forgetmenot.cli import main

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(k, "w", closefd=False)) for k in (1, 2))
        prepare()
        main(arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    os.close(writing)
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        process.join()
        return End(HUNG, "")
    status = process.exitcode
    os.set_blocking(reading, False)  # a process that the child started may still hold the other end
    said = b""
    with io.FileIO(reading) as stream, suppress(BlockingIOError):
        while part := stream.read(1 << 16):
            said += part
    return End(status, said.decode(errors="replace"))


def temporary_files_in(folder: Path) -> Callable[[], None]:
    """What lets a child, and its children, write temporary files into a folder, full or not."""

    def prepare() -> None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)

    return prepare
