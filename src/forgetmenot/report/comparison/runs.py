"""The runs of a comparison, read from their directories: what varies among them, and their answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.metrics import Answers, ScoreMatrix, measure, replicates
from forgetmenot.record.layout import PREDICTIONS, stage_folder
from forgetmenot.record.predictions import column, read_predictions
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.report.wording import NAMED_AT_MOST, listed, setting, setting_among

CONDITIONS = ("order", "prompt", "seed")
"""The keys by which runs are matched when models, methods or other settings are compared."""

DROP = "drop_since_learned"
"""What a task lost since it was learned, the mean over the tasks: minus the backward transfer."""


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        varies: What tells it from the others: the keys of a study's grid, or of the configs that differ.
        results: Its results.json; None where it failed.
        replicates: Its score matrix in each bootstrap draw of the examples; None where `unpaired` says why.
        examples: Task to what stands for its examples; runs with the same ones can be paired.
        failed: The sentence that says why it did not finish, or has no scores to compare.
        path: Its directory.
    """

    name: str
    varies: Mapping[str, Any]
    results: RunResults | None = None
    replicates: ScoreMatrix | None = None
    examples: Mapping[str, int] | None = None
    unpaired: str | None = None
    failed: str | None = None
    path: Path | None = None

    def figure(self, name: str) -> float | None:
        """A figure of `metrics.FIGURES`, as the run's summary has it, or `DROP`."""
        if self.results is None:
            return None
        summary = self.results.summary
        if name == DROP:
            transfer = summary.get("backward_transfer")
            return None if transfer is None else 0.0 - transfer
        haque = name.removeprefix("haque_")
        value: float | None = summary.get("haque", {}).get(haque) if haque != name else summary.get(name)
        return value

    def key(self, names: Sequence[str]) -> str:
        """Its values of some keys as one text."""
        return json.dumps([self.varies.get(name) for name in names], sort_keys=True)


def read_run(path: Path, varies: Mapping[str, Any]) -> ComparedRun:
    """Read a finished run and draw its bootstrap replicates; one that has diverged has failed.

    Raises:
        UserError: The directory has no readable results.json.
    """
    results = load_results(path)
    if results.not_finite:
        return ComparedRun(path.name, varies, failed=results.not_finite, path=path)
    try:
        answers, examples = _answers(path, results)
    except _UnpairedError as reason:
        return ComparedRun(path.name, varies, results, unpaired=str(reason), path=path)
    return ComparedRun(path.name, varies, results, replicates(results.stages, answers), examples, path=path)


def majority(run: ComparedRun) -> float | None:
    """The mean score of always the commonest answer on the tasks that its averages are over.

    None where a task has none.
    """
    if run.results is None:
        return None
    shares = [run.results.majority.get(task) for task in run.results.summary.get("over", ())]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known and len(known) == len(shares) else None


def varying(runs: Sequence[ComparedRun]) -> list[str]:
    """The keys that take more than one value, in the order in which they are given."""
    names = dict.fromkeys(name for run in runs for name in run.varies)
    return [name for name in names if len({run.key([name]) for run in runs}) > 1]


def level_name(key: str, value: Any, values: Sequence[Any]) -> str:
    """A value of a key as the page calls it; a model by the last part of its name where that is its own."""
    if key != "model":
        said = setting_among(value, values)
        return said if key in (*CONDITIONS, "method") else f"{key} {said}"
    names = [_model(one) for one in values]
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    distinct = {json.dumps(one, sort_keys=True) for one in values}
    if len(set(short)) == len(distinct):
        return _model(value).rstrip("/").rpartition("/")[2]
    return _model(value) if len(set(names)) == len(distinct) else setting(value)


def on_common_tasks(runs: Sequence[ComparedRun]) -> tuple[list[ComparedRun], str | None]:
    """The runs on the tasks that all of them were scored on, and a sentence where one has others too.

    Means over different tasks cannot be compared. Where no task is common, the runs stay as they are, and
    their tests say so.
    """
    tasks = [run.results.tasks for run in runs if run.results]
    common = [task for task in (tasks or [()])[0] if all(task in others for others in tasks)]
    more = list(dict.fromkeys(task for some in tasks for task in some if task not in common))
    if not more or not common:
        return list(runs), None
    said = (
        f"Compared on {listed(common)} alone, which all runs were scored on; "
        f"{listed(more) if len(more) <= NAMED_AT_MOST else f'{len(more)} other tasks'} left out."
    )
    return [_on(run, common) for run in runs], said


def _on(run: ComparedRun, tasks: Sequence[str]) -> ComparedRun:
    if run.results is None or set(run.results.tasks) == set(tasks):
        return run
    stack, examples = run.replicates, run.examples
    if stack is not None:
        columns = [stack.tasks.index(task) for task in tasks]
        stack = ScoreMatrix(tuple(tasks), stack.stages, stack.values[..., columns])
    if examples is not None:
        examples = {task: examples[task] for task in tasks}
    return replace(run, results=run.results.on(tasks), replicates=stack, examples=examples)


class _UnpairedError(Exception):
    """Why a run's answers cannot be compared with another's, as one sentence."""


def _answers(path: Path, results: RunResults) -> tuple[dict[str, Answers], dict[str, int]]:
    """Every task's answers after every stage, and what stands for its examples.

    The scores are computed again and must be those of results.json, so that no reading of the files that is
    not the run's own can slip in.
    """
    stages = [read_predictions(stage_folder(path, row.name) / PREDICTIONS) for row in results.stages]
    answers, examples = {}, {}
    for j, task in enumerate(results.tasks):
        metric = results.metrics[task]
        said = [stage.get(task) for stage in stages]
        there = next((one for one in said if one is not None), None)
        if there is None:
            raise _UnpairedError(f"{path.name} has no saved answers on {task}.")
        if any(one is not None and one.ids != there.ids for one in said):
            raise _UnpairedError(f"{path.name} was scored on other examples of {task} after some stages.")
        try:
            answered = column(metric, said)
        except UserError as error:
            raise _UnpairedError(f"{path.name}, {task}: {error}") from error
        for i, predicted in enumerate(answered.predicted):
            if not _agrees(metric, answered.gold, predicted, results.matrix[i][j]):
                raise _UnpairedError(
                    f"{path.name}: {metric} on {task} after {results.stages[i].name} is not what its "
                    "predictions give."
                )
        answers[task] = answered
        examples[task] = hash((metric, tuple(there.ids), tuple(there.gold)))
    return answers, examples


def _agrees(metric: str, gold: Any, predicted: Any, stored: float | None) -> bool:
    """Whether the score of a cell's answers is the one that was stored."""
    value = None if predicted is None else measure(metric, gold, predicted).value
    if value is None or stored is None:
        return value is stored
    return abs(value - stored) <= 1e-9


def _model(value: Any) -> str:
    return str(value["name"]) if isinstance(value, Mapping) else str(value)
