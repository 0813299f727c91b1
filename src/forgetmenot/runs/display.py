"""The display of a run: a table that fills, and a bar with a rate and an end time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from forgetmenot.report.terminal import LiveTable

Update = Callable[..., None]


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f}/s" if rate and rate >= 10 else f"{rate:.1f}/s" if rate else "")


class Display:
    """Shows one run on a console; off a terminal it prints a line as each stage ends, and no bars."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.table: LiveTable | None = None
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
        )
        self._live = Live(self.bars, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the finished table is printed by whoever reports, and here what a cut-off run has."""
        self._live.stop()
        if error is not None and self.console.is_terminal and self.table is not None and self.table.begun:
            self.console.print(self.table)

    def show(self, table: LiveTable) -> None:
        """Put the score matrix above the bars."""
        self.table = table
        self._live.update(Group(table, self.bars))

    def say(self, sentence: str) -> None:
        """Show the user a message that stays on the screen."""
        self.console.print(Text(sentence, style="dim"))

    def stage_done(self, number: int, name: str, row: Mapping[str, float | None]) -> None:
        """Fill a row of the matrix."""
        if self.table is None:
            return
        self.table.fill(number, row)
        if not self.console.is_terminal:
            self.console.print(f"{name}:  {self.table.line(row)}", highlight=False)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Update]:
        """A bar; call what it gives with how many were done, and a note if there is one."""
        bar = self.bars.add_task(description, total=total, note="")

        def advance(count: int, note: str = "", **_: Any) -> None:
            self.bars.update(bar, advance=count, note=note)

        try:
            yield advance
        finally:
            self.bars.remove_task(bar)
