"""The console that everything is printed on: what users name and write is text, never markup."""

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
