"""The live page of a run: its report with what is there so far, and what goes on at the moment."""

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.metrics import MatrixRow
from forgetmenot.record.layout import (
    BASE,
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    REPORT,
    RESULTS,
    SCORES,
    TRAINED,
    log_in_training,
    stage_folder,
)
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.record.seal import parse, read_json
from forgetmenot.record.so_far import finished, results_so_far
from forgetmenot.report.html import Now, report_page
from forgetmenot.report.live import EVERY, LivePage, plain_page
from forgetmenot.report.wording import number
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.ownership import LOCK


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
        try:
            if is_over(self.run_dir):
                return self._report()
            return self._so_far(held)
        except (UserError, OSError) as error:  # a file may go while it is read: a stage is being replaced
            return plain_page(self.run_dir.name, _now([f"Its files cannot be read now: {error}"], held))

    def _report(self) -> str:
        """The report that the run has written, to the letter."""
        path = self.run_dir / REPORT
        if path.is_file():
            return path.read_text(encoding="utf-8")
        return report_page(self.run_dir, load_results(self.run_dir))

    def _so_far(self, held: bool) -> str:
        config, rows = plan_of(self.run_dir)
        now = _now([stands_at(self.run_dir, rows), *_how_to_go_on(self.run_dir)], held)
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


def is_over(run_dir: Path) -> bool:
    """Whether a run has written its results, which it does last."""
    return (run_dir / RESULTS).is_file() and (run_dir / REPORT).is_file()


def plan_of(run_dir: Path) -> tuple[RunConfig | None, list[MatrixRow]]:
    """The config of a run and the stages that it will have, the base first; None before it says so.

    Raises:
        UserError: A file of it is damaged.
    """
    if not (run_dir / CONFIG).is_file():
        return None, []
    config = read_resolved(run_dir / CONFIG)
    identity = (read_json(run_dir / ENVIRONMENT, dict) or {}).get("identity", {})
    method = make_method(config.method.name, config.method.options, config.seed)
    trained = [
        MatrixRow(name, tuple(tasks), method.follows(Stage(number, tuple(tasks))))
        for number, (name, tasks) in enumerate(identity.get("stages", {}).items(), start=1)
    ]
    return config, [MatrixRow(BASE), *trained]


def stands_at(run_dir: Path, rows: Sequence[MatrixRow]) -> str:
    """What a run that is not over is doing, or where it was left, in a sentence.

    Args:
        run_dir: Its directory.
        rows: The stages that it will have; none before it says so.
    """
    if not rows:
        return "There is nothing to see yet: the page begins with the first scores of `fmn run`."
    done = len(finished(run_dir, rows))
    if done == len(rows):
        return "All stages are done; the results are still to be written."
    stage, before = rows[done].name, f"{done} of {len(rows)} stages are done. "
    if stage == BASE:
        return "The base model is to be scored first, on every task."
    if (RunDirectory(run_dir).writing(stage) / TRAINED).is_file():
        return f"{before}{stage} is trained, and is to be scored."
    last = _last_step(log_in_training(run_dir, stage))
    if last is None:
        return f"{before}{stage} is next."
    steps = _steps(run_dir, stage)
    of = f" of {steps:,}" if steps is not None else ""
    return f"{before}{stage} has learned for {last['step']:,}{of} steps (loss {number(last['loss'])})."


def in_use(run_dir: Path) -> bool:
    """Whether a process of this machine is at work on a directory."""
    try:
        with (run_dir / LOCK).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _now(sentences: Sequence[str], held: bool) -> Now:
    return Now(tuple(sentences), None if held else EVERY, held)


def _how_to_go_on(run_dir: Path) -> list[str]:
    """Where no process works on a run that was begun: how to go on."""
    if in_use(run_dir) or not (run_dir / CONFIG).is_file():
        return []
    return [f"No process works on it now; go on with: fmn resume {run_dir}"]


def _described(config: RunConfig) -> dict[str, Any]:
    return {
        "model": config.model.title,
        "method": config.method.name,
        "adapter": config.adapter.in_words,
        "seed": config.seed,
        "split": config.evaluation.split,
    }


def _steps(run_dir: Path, stage: str) -> int | None:
    """How many steps a stage takes, as the run has said when its training began."""
    path = run_dir / EVENTS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    found = [event for line in lines if (event := _parsed(line)).get("event") == "training"]
    return next((int(event["steps"]) for event in reversed(found) if event.get("stage") == stage), None)


def _last_step(log: Path) -> dict[str, Any] | None:
    """The last whole line of a training log; None where no step was logged."""
    lines = log.read_bytes().splitlines() if log.is_file() else []
    whole = [line for line in lines[-2:] if line.endswith(b"}")]
    return parse(log, whole[-1], dict) if whole else None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # it is being written
        return {}
    return found if isinstance(found, dict) else {}


def _stamp(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0
