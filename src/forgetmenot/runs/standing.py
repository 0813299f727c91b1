"""Where a run stands, read from its directory: what is done and kept, what comes next, who is at work."""

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.methods import Stage, make_method
from forgetmenot.metrics import MatrixRow
from forgetmenot.record.layout import (
    BASE,
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    REPORT,
    RESULTS,
    TRAINED,
    log_in_training,
)
from forgetmenot.record.seal import parse, read_json
from forgetmenot.record.so_far import finished
from forgetmenot.report.wording import number
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.ownership import LOCK


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
    if is_trained(run_dir, stage):
        return f"{before}{stage} is trained, and is to be scored."
    last = _last_step(log_in_training(run_dir, stage))
    if last is None:
        return f"{before}{stage} is next."
    steps = _steps(run_dir, stage)
    of = f" of {steps:,}" if steps is not None else ""
    return f"{before}{stage} has learned for {last['step']:,}{of} steps (loss {number(last['loss'])})."


def kept(run_dir: Path) -> str:
    """What is kept of a run that is cut off, in sentences; what was saved within a stage, that itself says.

    Raises:
        UserError: A file of it is damaged.
    """
    rows = plan_of(run_dir)[1]
    done = finished(run_dir, rows)
    said = f"{len(done)} of {len(rows)} stages are done and kept."
    if len(done) < len(rows) and is_trained(run_dir, stage := rows[len(done)].name):
        said += f" {stage} is trained, and what it has answered so far is kept."
    return said


def is_trained(run_dir: Path, stage: str) -> bool:
    """Whether a stage is trained and not scored yet."""
    return (RunDirectory(run_dir).writing(stage) / TRAINED).is_file()


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
