"""What is known of a run that is still going, read from the stages that it has finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetmenot.metrics import MatrixRow, metric_named, summarize
from forgetmenot.record.assemble import AskedTask, not_learned, reading, score_matrix
from forgetmenot.record.layout import PREDICTIONS, SCORES, stage_folder
from forgetmenot.record.predictions import Predictions, read_predictions
from forgetmenot.record.results import RunResults
from forgetmenot.record.seal import read_json

NOT_YET = "It has not been scored yet."
PLAIN = ("scoring", "normalization", "calibration")


def results_so_far(
    run_dir: Path, stages: Sequence[MatrixRow], described: Mapping[str, Any]
) -> RunResults | None:
    """The headline reading of the stages that are there; None before the base model is scored.

    Scores, their intervals and the summary are those that results.json would have with these stages alone;
    verdicts, the noise floor, further prompts and probes come when the run is over.

    Args:
        run_dir: The run's directory.
        stages: All stages that the run will have, the base first.
        described: What the run is: `model`, `method`, `adapter`, `seed`, `split`.

    Raises:
        UserError: A file of a finished stage is damaged.
    """
    done = finished(run_dir, stages)
    if not done:
        return None
    cells: dict[str, Mapping[str, Any]] = {}
    for cell in read_json(stage_folder(run_dir, done[0].name) / SCORES, list) or []:
        cells.setdefault(cell["task"], cell)  # a task's first one is of the headline reading
    answers = [read_predictions(stage_folder(run_dir, row.name) / PREDICTIONS) for row in done]
    asked = [_asked(cell, [stage.get(task) for stage in answers]) for task, cell in cells.items()]
    metrics = {one.task: one.metrics[0] for one in asked}
    found = reading(done, asked, metrics, list(metrics))
    there = {row.name: stage for row, stage in zip(done, answers, strict=True)}
    for gap in found["missing"]:
        if gap["task"] not in there[gap["stage"]]:
            gap["reason"] = NOT_YET
    chance = {one.task: _chance(one) for one in asked}
    return RunResults(
        {
            **described,
            "tasks": list(metrics),
            "stages": [{"name": r.name, "trains_on": r.trains_on, "follows": r.follows} for r in stages],
            "matrix": found["matrix"],
            "metrics": metrics,
            "majority": chance,
            "not_learned": not_learned(done, list(metrics), found["matrix"], chance),
            "summary": summarize(score_matrix(done, list(metrics), found["matrix"]), metrics).to_json(),
            "intervals": {"matrix": found["intervals"]},
            "readings": [found],
        }
    )


def finished(run_dir: Path, stages: Sequence[MatrixRow]) -> list[MatrixRow]:
    """The stages that are there, up to the first that is not."""
    done = []
    for row in stages:
        if not (stage_folder(run_dir, row.name) / SCORES).is_file():
            break
        done.append(row)
    return done


def _asked(cell: Mapping[str, Any], answers: Sequence[Predictions | None]) -> AskedTask:
    """A task as the base's scores.json describes it."""
    return AskedTask(
        task=cell["task"],
        metrics=tuple(cell["scores"]),
        prompt=cell["prompt"],
        prompt_hash=cell["prompt_hash"],
        answers=answers,
        scoring={name: cell[name] for name in PLAIN},
        demonstrations=cell["demonstrations"],
        written="unparsed" in cell,
        truncated=cell["truncated"],
    )


def _chance(asked: AskedTask) -> float | None:
    answers = asked.column(asked.metrics[0])
    return metric_named(answers.metric).chance_level(answers.gold)
