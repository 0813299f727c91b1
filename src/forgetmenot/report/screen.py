"""The console that everything is printed on: what users name and write is text, never markup."""

import sys

from rich.console import Console


class Screen(Console):
    """A console without markup and emoji codes, which leaves it to the caller what a closed stdout means.

    A path `run[/v2]` or a task's error with brackets in it is printed as it stands. Styles are given by
    `Text`. Rich's own console exits with 1 where its reader has gone.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Pass the error on."""
        raise


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, where people see what is printed without having asked."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"
