"""The live page of a run: its report with what is there so far, and what goes on at the moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from forgetmenot.config import RunConfig
from forgetmenot.errors import UserError
from forgetmenot.record.layout import REPORT, SCORES, log_in_training, stage_folder
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.record.so_far import finished, results_so_far
from forgetmenot.report.html import Now, report_page
from forgetmenot.report.live import EVERY, LivePage, plain_page
from forgetmenot.runs.standing import in_use, is_over, plan_of, stands_at


def watch_run(run_dir: Path, port: int | None = None) -> LivePage:
    """Serve the page of a run.

    Raises:
        UserError: The port cannot be had.
    """
    pages = RunPages(run_dir)
    return LivePage(lambda path, held: pages.page(held=held) if path == "/" else None, port)


@dataclass
class RunPages:
    """Makes the page of a run each time that it is asked for, from what has changed since.

    Attributes:
        run_dir: The run's directory, in which there may be nothing yet.
    """

    run_dir: Path
    _stages: tuple[Any, ...] = ()
    _results: RunResults | None = None
    _page: tuple[Any, str] = field(default=((), ""))

    def page(self, *, held: bool = False) -> str:
        """The page of this moment; whatever cannot be read is said on it, and asked for again."""
        at_work = in_use(self.run_dir)  # asked first: the run may end while its files are read
        try:
            if is_over(self.run_dir):
                return self._report()
            return self._so_far(held, at_work)
        except (UserError, OSError) as error:  # a file may go while it is read: a stage is being replaced
            return plain_page(self.run_dir.name, _now([f"Its files cannot be read now: {error}"], held))

    def _report(self) -> str:
        """The report that the run has written, to the letter."""
        path = self.run_dir / REPORT
        if path.is_file():
            return path.read_text(encoding="utf-8")
        return report_page(self.run_dir, load_results(self.run_dir))

    def _so_far(self, held: bool, at_work: bool) -> str:
        config, rows = plan_of(self.run_dir)
        said = [stands_at(self.run_dir, rows)]
        if not (at_work or in_use(self.run_dir)) and config is not None:  # again: it may have begun by now
            said.append(f"No process works on it now; go on with: fmn resume {quote(str(self.run_dir))}")
        now = _now(said, held)
        if config is None or not (done := finished(self.run_dir, rows)):
            title = config.model.title if config is not None else str(self.run_dir)
            return plain_page(f"Waiting for {title}", now)
        stages = (tuple(rows), *(_stamp(stage_folder(self.run_dir, row.name) / SCORES) for row in done))
        if stages != self._stages:
            self._results, self._stages = results_so_far(self.run_dir, rows, _described(config)), stages
        if self._results is None:
            return plain_page(f"Waiting for {config.model.title}", now)
        asked = (stages, now, *(_stamp(log_in_training(self.run_dir, row.name)) for row in rows))
        if asked != self._page[0]:
            self._page = asked, report_page(self.run_dir, self._results, now)
        return self._page[1]


def _now(sentences: Sequence[str], held: bool) -> Now:
    return Now(tuple(sentences), None if held else EVERY, held)


def _described(config: RunConfig) -> dict[str, Any]:
    return {
        "model": config.model.title,
        "method": config.method.name,
        "adapter": config.adapter.in_words,
        "seed": config.seed,
        "split": config.evaluation.split,
    }


def _stamp(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0
