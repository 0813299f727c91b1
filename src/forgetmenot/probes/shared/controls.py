"""Models that were tuned on one task alone, as another run has left their states."""

from pathlib import Path
from typing import NamedTuple

import yaml

from forgetmenot.errors import UserError
from forgetmenot.record.layout import CONFIG, PROBES, RESULTS
from forgetmenot.record.seal import read_checked, read_json

SINGLE = "single"


class Control(NamedTuple):
    """Where a control's states are.

    Attributes:
        folder: The folder of the probe `layers` in its run.
        stage: The stage that was tuned on the task alone.
    """

    folder: Path
    stage: str


def controls_of(run_dir: Path, where: str) -> dict[str, Control]:
    """The controls that a finished run holds, by task.

    They are the stages of the method `single`, each from the base model, and of another run its first stage.

    Args:
        run_dir: The run's directory.
        where: The key that names it, for an error.

    Raises:
        UserError: If this is no finished run, or has no stage of one task.
    """
    results = read_json(run_dir / RESULTS, dict)
    if results is None:
        raise UserError(f"{where}: {run_dir} is not the directory of a finished run: it has no {RESULTS}.")
    config = yaml.safe_load(read_checked(run_dir / CONFIG) or b"")
    trained = [stage for stage in results["stages"] if stage["trains_on"]]
    if config["method"]["name"] != SINGLE:
        trained = trained[:1]
    folder = run_dir / PROBES / "layers"
    found = {
        stage["trains_on"][0]: Control(folder, stage["name"])
        for stage in trained
        if len(stage["trains_on"]) == 1
    }
    if not found:
        raise UserError(f"{where}: {run_dir} has no model that was tuned on one task alone.")
    return found
