"""A stage's cost.json: its input positions in training and in scoring, and what it keeps for the next one."""

from pathlib import Path

from forgetmenot.record.files import write_json
from forgetmenot.record.layout import COST
from forgetmenot.record.seal import read_json

Parts = dict[str, dict[str, int]]


def read_cost(folder: Path) -> Parts:
    """The cost of a stage, by part; nothing where none was written yet."""
    found: Parts = read_json(folder / COST, dict) or {}
    return found


def write_cost(folder: Path, cost: Parts) -> None:
    """Write what `read_cost` reads, into the folder of a stage that is not committed yet."""
    write_json(folder / COST, cost, indent=None)
