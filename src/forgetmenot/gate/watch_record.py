"""What a watched training leaves on disk: the answers of each asking, and at the end the page of a run.

    watched.json  environment.json
    stages/00-base/predictions.parquet  stages/01-step-100/predictions.parquet  …
    results.json  report.html

The folder is laid out as a run's directory whose stages train on no task, so that whatever reads runs reads
it: `fmn report` writes the page again.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.gate.watcher import ME, Asked
from forgetmenot.metrics import MatrixRow
from forgetmenot.record.assemble import assemble
from forgetmenot.record.cost import read_cost, write_cost
from forgetmenot.record.files import write_json
from forgetmenot.record.layout import (
    ASKED_AGAIN,
    BASE,
    CONFIG,
    ENVIRONMENT,
    PREDICTIONS,
    REPORT,
    RESULTS,
    SEAL,
    STAGES,
    TIMING,
)
from forgetmenot.record.predictions import Predictions, read_predictions, write_predictions
from forgetmenot.record.result_schema import Cost
from forgetmenot.report.html import write_report
from forgetmenot.runs.directory import RunDirectory

WATCHED = "watched.json"
"""What tells such a folder from a run's; written last of all that an asking leaves."""


@dataclass(frozen=True)
class WatchedStage:
    """An asking: after so many optimizer steps, and why some tasks have no answers."""

    name: str
    step: int
    missing: dict[str, str] = field(default_factory=dict)


class WatchRecord:
    """Reads and writes the folder; of several processes, the one that asks has it."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory(path)
        self.stages: list[WatchedStage] = []
        self._about: dict[str, Any] = {}

    @property
    def path(self) -> Path:
        """The folder."""
        return self.directory.path

    def check(self) -> None:
        """See that the folder can be written, and holds nothing but an earlier watch.

        Raises:
            UserError: If not.
        """
        try:
            self.directory.check_writable()
        except UserError as error:
            raise UserError(f"{ME}: {error}") from error
        ours = (CONFIG, RESULTS, STAGES, REPORT, ENVIRONMENT, TIMING)
        others = [name for name in ours if (self.path / name).exists()]
        if others and not (self.path / WATCHED).is_file():
            raise UserError(
                f"{ME}: {self.path} holds {others[0]} of something else; give another folder as output."
            )

    def begin(self, about: Mapping[str, Any]) -> None:
        """Start over: what an earlier training left here is removed."""
        self.check()
        for name in (SEAL, WATCHED, RESULTS, REPORT, ENVIRONMENT, TIMING):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / STAGES, ignore_errors=True)
        self._about, self.stages = dict(about), []

    def resume(self, about: Mapping[str, Any], step: int) -> dict[str, Predictions]:
        """Go on from what was asked up to a step, and return the base's answers.

        Raises:
            UserError: If there are none, or those to other questions.
        """
        content = self.directory.read_json(WATCHED)
        if content is None:
            raise UserError(
                f"{ME}: training is resumed at step {step}, and {self.path} holds no answers of the model "
                "before training; give the output of the training that is resumed."
            )
        if content["about"]["tasks"] != about["tasks"]:
            raise UserError(
                f"{ME}: training is resumed at step {step}, and {self.path} holds answers to other tasks, "
                "prompts or examples; watch the same ones, or give the output of the resumed training."
            )
        self._about = dict(about)
        self.stages = [stage for one in content["stages"] if (stage := WatchedStage(**one)).step <= step]
        for name in (RESULTS, REPORT):
            (self.path / name).unlink(missing_ok=True)
        return read_predictions(self.directory.stage(BASE) / PREDICTIONS)

    def add(self, title: str, step: int, asked: Asked, seconds: float) -> None:
        """Keep the answers of an asking.

        Args:
            title: What readers call it.
            step: Optimizer steps before it.
            asked: What came of it.
            seconds: How long it took.
        """
        number = len(self.stages)
        name = BASE if number == 0 else f"{number:02d}-{title}"
        shutil.rmtree(self.directory.stage(name), ignore_errors=True)  # of a training that went further
        with self.directory.committing(name) as folder:
            write_predictions(folder / PREDICTIONS, asked.answers)
            write_cost(folder, {"scoring": asked.counts})
            if asked.again:
                write_json(folder / ASKED_AGAIN, asked.again)
        self.directory.record_time(number, {"eval_s": seconds})
        self.stages.append(WatchedStage(name, step, asked.missing))
        self.directory.write_json(
            WATCHED, {"version": 1, "about": self._about, "stages": [asdict(one) for one in self.stages]}
        )

    def write_page(self, scored: Sequence[ScoredTask], margins: Mapping[str, float]) -> Path:
        """Write results.json and the page from what is there.

        Args:
            scored: The tasks.
            margins: Task to ε.

        Returns:
            The page's path.
        """
        rows = [MatrixRow(stage.name) for stage in self.stages]
        folders = [self.directory.stage(stage.name) for stage in self.stages]
        answers = [read_predictions(folder / PREDICTIONS) for folder in folders]
        asked = [one.asked([stage.get(one.task.name) for stage in answers], rows) for one in scored]
        described = {**self._about["described"], "margins": dict(margins)}
        cost = Cost(
            positions={row.name: read_cost(folder) for row, folder in zip(rows, folders, strict=True)}
        )
        results = assemble(rows, [asked], described, cost)
        why = {(stage.name, task): text for stage in self.stages for task, text in stage.missing.items()}
        for reading in results["readings"]:
            for gap in reading["missing"]:
                gap["reason"] = why.get((gap["stage"], gap["task"]), gap["reason"])
        again = self.directory.read_json(f"{STAGES}/{BASE}/{ASKED_AGAIN}")
        if again is not None:
            results["asked_again"] = again
        self.directory.write_json(RESULTS, results)
        return write_report(self.path)
