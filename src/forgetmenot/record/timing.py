"""A run's timing.json: the seconds of each part of each stage, {"train_s": [stage 0, stage 1, …], …}."""

from pathlib import Path

from forgetmenot.record.damage import damaged
from forgetmenot.record.layout import TIMING
from forgetmenot.record.seal import read_json

Times = dict[str, list[float | None]]


def read_timing(run_dir: Path) -> Times:
    """The times of a run; nothing where none were written.

    Raises:
        UserError: The file holds something else.
    """
    path = run_dir / TIMING
    if not path.exists():
        return {}
    found: Times = read_json(path, dict) or {}
    for row in found.values():
        if not isinstance(row, list) or not all(isinstance(one, int | float | None) for one in row):
            raise damaged(path, "it holds something else than lists of seconds")
    return found
