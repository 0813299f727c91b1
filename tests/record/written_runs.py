"""Run directories with chosen answers, written by the code that writes real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetmenot.metrics import MatrixRow
from forgetmenot.record.assemble import AskedTask, assemble
from forgetmenot.record.files import write_json
from forgetmenot.record.layout import PREDICTIONS, RESULTS, stage_folder
from forgetmenot.record.predictions import Predictions, write_predictions
from forgetmenot.record.result_schema import Cost, Results

DESCRIBED = {
    "model": "base-4m",
    "method": "sequential",
    "adapter": "LoRA, rank 8",
    "seed": 0,
    "split": "score",
}


def asked(
    task: str, metrics: Sequence[str], answers: Sequence[Predictions | None], **settings: Any
) -> AskedTask:
    """A task that was asked with its default prompt."""
    plain = {"scoring": "likelihood", "normalization": "none", "calibration": "none"}
    return AskedTask(
        task, tuple(metrics), "default", "0123456789abcdef", answers, **{"scoring": plain, **settings}
    )


def write_results(
    run_dir: Path,
    rows: Sequence[MatrixRow],
    tasks: Sequence[AskedTask],
    *,
    described: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
) -> Results:
    """Write what every stage answered, and the results.json that follows from it; returns its content."""
    for i, row in enumerate(rows):
        there = {one.task: answers for one in tasks if (answers := one.answers[i]) is not None}
        path = stage_folder(run_dir, row.name) / PREDICTIONS
        path.parent.mkdir(parents=True)
        write_predictions(path, there)
    results = assemble(rows, [tasks], {**DESCRIBED, **(described or {})}, cost or Cost(parameters=1000))
    write_json(run_dir / RESULTS, results)
    return results
