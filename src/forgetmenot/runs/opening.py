"""Opening a directory to work in: the lock, and what the user sees meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from forgetmenot.engine import ranks
from forgetmenot.report.screen import Screen
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display


@contextmanager
def opened(directory: RunDirectory, console: Console | None) -> Iterator[Display]:
    """Hold a directory and show progress; of several processes, which are joined here, the writer shows it.

    Args:
        directory: Where to work.
        console: Where to show progress; None shows nothing.

    Raises:
        UserError: If another process holds the directory, or it cannot be made.
    """
    ranks.join()
    console = console if console and ranks.writes() else Screen(quiet=True)
    with directory.locked(), Display(console) as display:
        yield display
