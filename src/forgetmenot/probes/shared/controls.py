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
        base: The untouched model's stage in that run.
    """

    folder: Path
    stage: str
    base: str


def controls_of(run_dir: Path, limit: int, default: int, where: str) -> dict[str, Control]:
    """The controls that a finished run holds, by task.

    They are the stages of the method `single`, each from the base model, and of another run its first stage.

    Args:
        run_dir: The run's directory.
        limit: How many inputs of each task are compared.
        default: As many as are where a run does not say.
        where: The key that names it, for an error.

    Raises:
        UserError: If this is no finished run, has no stage of one task, or its states are not kept or are of
            another number of inputs.
    """
    results = read_json(run_dir / RESULTS, dict)
    if results is None:
        raise UserError(f"{where}: {run_dir} is not the directory of a finished run: it has no {RESULTS}.")
    config = yaml.safe_load(read_checked(run_dir / CONFIG) or b"")
    trained = [stage for stage in results["stages"] if stage["trains_on"]]
    if config["method"]["name"] != SINGLE:
        trained = trained[:1]
    folder = run_dir / PROBES / "layers"
    if not folder.is_dir():
        raise UserError(
            f"{where}: {run_dir} was not measured by the probe `layers`; begin it anew with "
            f"--set 'evaluation.probes=[{{name: layers, limit: {limit}}}]'."
        )
    named = [one for one in config["evaluation"]["probes"] if one["name"] == "layers"]
    if named and (other := named[0].get("limit", default)) != limit:
        raise UserError(f"{where}: {run_dir} was measured with limit: {other}, and this run has {limit}.")
    found = {
        stage["trains_on"][0]: Control(folder, stage["name"], results["stages"][0]["name"])
        for stage in trained
        if len(stage["trains_on"]) == 1
    }
    if not found:
        raise UserError(f"{where}: {run_dir} has no model that was tuned on one task alone.")
    return found
