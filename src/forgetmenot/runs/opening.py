"""Opening a directory to work in: the lock, and what the user sees meanwhile."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from forgetmenot.engine import ranks
from forgetmenot.report.screen import Screen, in_notebook
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.ownership import Kind


@contextmanager
def opened(directory: RunDirectory, console: Console | None, kind: Kind = "run") -> Iterator[Display]:
    """Hold a directory and show progress; of several processes, which are joined here, the writer shows it.

    Args:
        directory: Where to work.
        console: Where to show progress; None shows it in a notebook alone.
        kind: What is written into the directory.

    Raises:
        UserError: If another process holds the directory, it cannot be made, or it holds what is not ours.
    """
    ranks.join()
    console = console or Screen(quiet=not in_notebook())
    console = console if ranks.writes() else Screen(quiet=True)
    with directory.locked(kind), Display(console) as display, warnings.catch_warnings():
        # PEFT asks Transformers for an old name, which no user can act on
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield display
