"""The display of a study: a line for each active run, and the progress of the whole."""

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from forgetmenot.report.wording import duration, setting
from forgetmenot.studies.config import StudyRun

SEEDS_FOR_EXACT = 6
"""From so many seeds on a sign-flip test can give p < .05: 2 / 2⁶ = .031."""


class StudyDisplay:
    """Shows a study on a console; off a terminal it prints a line as each run ends."""

    def __init__(self, console: Console, total: int, pending: int) -> None:
        self.console = console
        self._total, self._pending = total, pending
        self._done, self._failed = 0, 0
        self._began = time.monotonic()
        self._running: dict[Path, tuple[str, float]] = {}
        self._live = Live(
            get_renderable=self._lines,
            console=console,
            refresh_per_second=2,
            transient=True,
            auto_refresh=True,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._live.stop()

    def started(self, run: StudyRun) -> None:
        """Show a run that is at work from now on."""
        self._running[run.config.directory] = run.title, time.monotonic()

    def ended(self, run: StudyRun, failed: str | None) -> None:
        """Say how a run ended; `failed` is the sentence of one that did not finish."""
        title, began = self._running.pop(run.config.directory)
        self._done, self._failed = self._done + (not failed), self._failed + bool(failed)
        line = Text.assemble(
            f"{title}: ",
            ("failed", "red") if failed else ("done", "green"),
            f" in {duration(time.monotonic() - began)}" + (f": {failed}" if failed else ""),
            (f" ({self._whole()})", "dim"),
        )
        self.console.print(line, soft_wrap=True)

    def _lines(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for directory, (title, began) in self._running.items():
            table.add_row(title, _last_event(directory), duration(time.monotonic() - began))
        return Group(table, Text(self._whole(), style="bold"))

    def _whole(self) -> str:
        """How many runs are done, failed and running, at what rate, and when it will be over."""
        ended = self._done + self._failed
        parts = [f"{self._total - self._pending + self._done} of {self._total} done"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{len(self._running)} running"] if self._running else []
        left = self._pending - ended
        if ended and left:
            each = (time.monotonic() - self._began) / ended
            end = datetime.now() + timedelta(seconds=each * left)
            parts += [f"{3600 / each:.3g} runs/h", f"ends about {end:%a %H:%M}"]
        return ", ".join(parts)


def print_plan(runs: Sequence[StudyRun], pending: Sequence[StudyRun], console: Console) -> None:
    """Say what a study will run before it does."""
    to_do = {run.config.directory for run in pending}
    table = Table(
        "", *runs[0].varies, "", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
    )
    for number, run in enumerate(runs, start=1):
        state = "" if run.config.directory in to_do else "finished"
        table.add_row(str(number), *map(setting, run.varies.values()), Text(state, style="dim"))
    console.print(table)
    console.print(f"{len(runs)} runs, {len(pending)} to do", highlight=False)
    console.print(Text(what_seeds_show(len({run.config.seed for run in runs})), style="dim"), "", sep="\n")


def what_seeds_show(seeds: int) -> str:
    """What the tests of a study with so many training seeds can speak of."""
    if seeds == 1:
        return "One seed: the study will speak of these checkpoints, not of methods or models; give several."
    tests = f"{seeds} seeds: tests are t tests over seeds and examples together"
    if seeds < SEEDS_FOR_EXACT:
        return f"{tests}; an exact test over seeds alone needs {SEEDS_FOR_EXACT}."
    return f"{tests}."


def _last_event(directory: Path) -> str:
    """What a run wrote last into its events.jsonl: the stage that it is in, or has finished."""
    try:
        event = json.loads((directory / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        return f"{event['event']} {event.get('stage', '')}".strip()
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return "starting"
