"""Runs side by side, read from their directories: what varies among them, and what each one answered."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from forgetmenot.metrics import Answers, ScoreMatrix, measure, replicates
from forgetmenot.metrics import Stage as Row
from forgetmenot.report.findings import Findings, load
from forgetmenot.report.wording import setting

CONDITIONS = ("order", "prompt", "seed")
"""What runs are matched by when a model, a method or any other setting is held against another."""


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        varies: What tells it from the others: the keys of a study's grid, or of the configs that differ.
        findings: Its results.json; None where it failed.
        replicates: Its score matrix in each bootstrap draw of the examples; None where `unpaired` says why.
        examples: Task to what stands for its examples; runs with the same ones can be paired.
        failed: The sentence that says why it did not finish.
    """

    name: str
    varies: Mapping[str, Any]
    findings: Findings | None = None
    replicates: ScoreMatrix | None = None
    examples: Mapping[str, int] | None = None
    unpaired: str | None = None
    failed: str | None = None

    def figure(self, name: str) -> float | None:
        """A figure of `metrics.FIGURES`, as the run's summary has it."""
        if self.findings is None:
            return None
        summary = self.findings.summary
        haque = name.removeprefix("haque_")
        value: float | None = summary.get("haque", {}).get(haque) if haque != name else summary.get(name)
        return value

    def key(self, names: Sequence[str]) -> str:
        """Its values of some keys as one text."""
        return json.dumps([self.varies.get(name) for name in names], sort_keys=True)


def read_run(path: Path, varies: Mapping[str, Any]) -> ComparedRun:
    """Read a finished run and draw its bootstrap replicates.

    Raises:
        UserError: The directory has no readable results.json.
    """
    findings = load(path)
    stages = [Row(stage.name, stage.trains_on, stage.follows) for stage in findings.stages]
    try:
        answers, examples = _answers(path, findings)
    except _UnpairedError as reason:
        return ComparedRun(path.name, varies, findings, unpaired=str(reason))
    return ComparedRun(path.name, varies, findings, replicates(stages, answers), examples)


def varying(runs: Sequence[ComparedRun]) -> list[str]:
    """The keys that take more than one value, in the order in which they are given."""
    names = dict.fromkeys(name for run in runs for name in run.varies)
    return [name for name in names if len({run.key([name]) for run in runs}) > 1]


def level_name(key: str, value: Any, values: Sequence[Any]) -> str:
    """A value of a key as the page calls it; a model by the last part of its name where that is its own."""
    if key != "model":
        return setting(value) if key in (*CONDITIONS, "method") else f"{key} {setting(value)}"
    names = [_model(one) for one in values]
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    distinct = {json.dumps(one, sort_keys=True) for one in values}
    if len(set(short)) == len(distinct):
        return _model(value).rstrip("/").rpartition("/")[2]
    return _model(value) if len(set(names)) == len(distinct) else setting(value)


class _UnpairedError(Exception):
    """Why a run's answers cannot be held against another's, as one sentence."""


def _answers(path: Path, findings: Findings) -> tuple[dict[str, Answers], dict[str, int]]:
    """Every task's answers after every stage, and what stands for its examples.

    The scores are computed anew and must be those of results.json, so that no reading of the files that is
    not the run's own can slip in.
    """
    tables = [_table(path / "stages" / stage.name / "predictions.parquet") for stage in findings.stages]
    answers, examples = {}, {}
    for j, task in enumerate(findings.tasks):
        metric = findings.metrics[task]
        rows = [table.get(task) for table in tables]
        there = next((one for one in rows if one is not None), None)
        if there is None:
            raise _UnpairedError(f"{path.name} keeps no answers on {task}.")
        if any(one is not None and one["example"] != there["example"] for one in rows):
            raise _UnpairedError(f"{path.name} was asked other examples of {task} after some stages.")
        labels = sorted({str(x) for one in rows if one for x in (*one["gold"], *one["predicted"])})
        gold = _as_measured(metric, there, "gold", labels)
        predicted = [None if one is None else _as_measured(metric, one, "predicted", labels) for one in rows]
        for i, said in enumerate(predicted):
            if not _agrees(metric, gold, said, findings.matrix[i][j]):
                raise _UnpairedError(
                    f"{path.name}: {metric} on {task} after {findings.stages[i].name} cannot be computed "
                    "from its predictions alone."
                )
        answers[task] = Answers(metric, gold, predicted)
        examples[task] = hash((metric, tuple(there["example"]), tuple(there["gold"])))
    return answers, examples


def _agrees(metric: str, gold: Any, predicted: Any, stored: float | None) -> bool:
    """Whether the score of a cell's answers is the one that was stored."""
    try:
        value = None if predicted is None else measure(metric, gold, predicted).value
    except ValueError:  # the metric needs more than the file holds, such as which label is the positive one
        return False
    if value is None or stored is None:
        return value is stored
    return abs(value - stored) <= 1e-9


def _table(path: Path) -> dict[str, dict[str, list[Any]]]:
    """A stage's predictions by task, column by column; nothing where the file was not kept."""
    tables: dict[str, dict[str, list[Any]]] = {}
    if path.is_file():
        columns = parquet.read_table(path).to_pydict()
        for k, task in enumerate(columns["task"]):
            row = tables.setdefault(task, {name: [] for name in columns})
            for name, values in columns.items():
                row[name].append(values[k])
    return tables


def _as_measured(metric: str, table: Mapping[str, Sequence[Any]], column: str, labels: Sequence[str]) -> Any:
    """A column as `metrics.measure` takes it."""
    values = table[column]
    if metric == "loss":
        if column == "gold":
            return values
        return np.array(
            [[row[0], n] for row, n in zip(table["log_likelihoods"], table["tokens"], strict=True)]
        )
    if metric in ("spearman", "pearson"):
        return np.array(values, dtype=np.float64)
    if metric in ("accuracy", "matthews"):
        code = {label: k for k, label in enumerate(labels)}
        return np.array([code[str(value)] for value in values])
    return ["" if value is None else str(value) for value in values]


def _model(value: Any) -> str:
    return str(value["name"]) if isinstance(value, Mapping) else str(value)
