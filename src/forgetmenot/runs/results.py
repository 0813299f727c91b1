"""results.json: the score matrices of a run, and all that follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from forgetmenot.metrics import (
    METRICS,
    Answers,
    Measured,
    ScoreMatrix,
    bootstrap,
    majority,
    measure,
    noise_floor,
    significance,
    summarize,
)
from forgetmenot.metrics import Stage as Row
from forgetmenot.probes import Probe
from forgetmenot.runs.choice import BY_LIKELIHOOD
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.evaluate import Predictions, Question, for_metric, read_predictions
from forgetmenot.runs.loop import read_cost
from forgetmenot.runs.probing import table, written

NOT_ASKED = "The stage's weights were no longer on disk when this task was added."


def assemble(
    directory: RunDirectory, rows: Sequence[Row], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Any]:
    """Read every stage's predictions and derive what results.json holds of them.

    Args:
        directory: The run's; every stage of `rows` is committed.
        rows: The stages, the base first.
        questions: What was asked, by the file that the predictions are in: the headline first.
    """
    answers = {
        file: [read_predictions(directory.stage(row.name) / file) for row in rows] for file in questions
    }
    headline, *others = questions
    tasks = [one.task.name for one in questions[headline]]
    metrics = {one.task.name: one.task.metric for one in questions[headline]}
    columns = _columns(questions[headline], answers[headline], metrics)
    cells = _measure(columns)
    matrix = _values(cells)
    intervals = bootstrap(rows, columns)
    most = {task: majority(column.metric, column.gold) for task, column in columns.items()}
    return {
        "version": 1,
        "tasks": tasks,
        "stages": [{"name": r.name, "trains_on": list(r.trains_on), "follows": r.follows} for r in rows],
        "matrix": matrix,
        "metrics": metrics,
        "majority": most,
        "not_learned": _not_learned(rows, tasks, matrix, most),
        "summary": summarize(_score_matrix(rows, tasks, matrix), metrics).to_json(),
        "intervals": intervals.to_json(),
        "noise_floor": noise_floor(rows, columns),
        "significance": {task: test.to_json() for task, test in significance(rows, columns).items()},
        "readings": [
            reading(rows, questions[file], answers[file], chosen, tasks)
            for file in (headline, *others)
            for chosen in _choices_of_metric(questions[file])
        ],
        "probes": {},
        "cost": _cost({row.name: read_cost(directory.stage(row.name)) for row in rows}),
    }


def probe_tables(
    directory: RunDirectory, rows: Sequence[Row], probes: Mapping[str, Probe]
) -> dict[str, dict[str, Any]]:
    """What each probe found over all stages."""
    found = [written(directory, row.name) for row in rows]
    names = [row.name for row in rows]
    return {name: table(probe, names, [one.get(name) for one in found]) for name, probe in probes.items()}


def _cost(stages: Mapping[str, Mapping[str, dict[str, int]]]) -> dict[str, Any]:
    """Input positions of each stage, and what the method keeps after each trained one."""
    kept = {name: cost["kept"] for name, cost in stages.items() if "kept" in cost}
    return {
        "positions": {
            name: {part: n for part, n in cost.items() if part != "kept"} for name, cost in stages.items()
        },
        "memory_kept": {name: one["bytes"] for name, one in kept.items()},
        "parameters_added": {name: one["parameters_added"] for name, one in kept.items()},
    }


def _choices_of_metric(questions: Sequence[Question]) -> list[dict[str, str]]:
    """Task → metric for each reading: every task's headline, then each further metric where it applies."""
    further = dict.fromkeys(metric for one in questions for metric in one.task.further_metrics)
    return [
        {one.task.name: one.task.metric for one in questions},
        *(
            {one.task.name: metric for one in questions if metric in one.task.further_metrics}
            for metric in further
        ),
    ]


def reading(
    rows: Sequence[Row],
    questions: Sequence[Question],
    answers: Sequence[Mapping[str, Predictions]],
    metrics: Mapping[str, str],
    tasks: Sequence[str],
) -> dict[str, Any]:
    """One matrix: one choice of metric for each task; tasks that the choice leaves out are null.

    Args:
        rows: The stages, the base first.
        questions: What was asked.
        answers: Those of each stage, by task.
        metrics: The metric of each task that the choice is of.
        tasks: The columns.
    """
    columns = _columns(questions, answers, metrics)
    cells = _measure(columns)
    spans = bootstrap(rows, columns).to_json()["matrix"]
    place = {task: k for k, task in enumerate(columns)}
    names = sorted(set(metrics.values()))
    return {
        "metric": names[0] if len(names) == 1 else dict(metrics),
        "version": {name: METRICS[name].version for name in names},
        "prompt": {one.task.name: one.prompt.name for one in questions},
        "prompt_hash": {one.task.name: one.prompt.hash for one in questions},
        **_asked(questions),
        "matrix": _values(cells, tasks),
        "n": {one.task.name: len(one.examples) for one in questions if one.task.name in columns},
        "intervals": [[row[place[t]] if t in place else None for t in tasks] for row in spans],
        "missing": [
            {"stage": rows[i].name, "task": task, "reason": cell.reason}
            for task, column in cells.items()
            for i, cell in enumerate(column)
            if cell.value is None
        ],
        "truncated": {one.task.name: one.truncated for one in questions if one.truncated["examples"]},
        **_unparsed(questions, answers, tasks),
    }


def _asked(questions: Sequence[Question]) -> dict[str, Any]:
    """How choices were read and answers written, and what was shown before each task's examples."""
    way = next((one.way for one in questions if one.task.kind == "choice"), BY_LIKELIHOOD)
    shown = {one.task.name: one.described["demonstrations"] for one in questions}
    written = {
        one.task.name: {**one.described["generation"], "extract": one.task.generation.extract}
        for one in questions
        if one.writing is not None
    }
    return {
        **asdict(way),
        **({"generation": written} if written else {}),
        "demonstrations": {task: one for task, one in shown.items() if one},
    }


def _unparsed(
    questions: Sequence[Question], answers: Sequence[Mapping[str, Predictions]], tasks: Sequence[str]
) -> dict[str, Any]:
    """Stage by stage, how many written answers of each task named no label; nothing where none is read."""
    read = {one.task.name for one in questions if one.way.scoring == "generation"}
    if not read:
        return {}
    return {
        "unparsed": [
            [stage[task].unparsed if task in read and task in stage else None for task in tasks]
            for stage in answers
        ]
    }


def _columns(
    questions: Sequence[Question],
    answers: Sequence[Mapping[str, Predictions]],
    metrics: Mapping[str, str],
) -> dict[str, Answers]:
    columns = {}
    for one in questions:
        task = one.task
        if task.name in metrics:
            there = [stage.get(task.name) for stage in answers]
            pairs = [None if p is None else for_metric(task, metrics[task.name], p) for p in there]
            gold = next(pair[0] for pair in pairs if pair is not None)
            columns[task.name] = Answers(metrics[task.name], gold, [pair and pair[1] for pair in pairs])
    return columns


def _measure(columns: Mapping[str, Answers]) -> dict[str, list[Measured]]:
    return {
        task: [
            Measured(None, NOT_ASKED, 0)
            if predicted is None
            else measure(column.metric, column.gold, predicted)
            for predicted in column.predicted
        ]
        for task, column in columns.items()
    }


def _values(
    cells: Mapping[str, Sequence[Measured]], tasks: Sequence[str] | None = None
) -> list[list[float | None]]:
    """Stage by stage, the value of each task, None where it is missing."""
    height = len(next(iter(cells.values())))
    return [
        [cells[task][i].value if task in cells else None for task in tasks or cells] for i in range(height)
    ]


def _score_matrix(
    rows: Sequence[Row], tasks: Sequence[str], matrix: Sequence[Sequence[float | None]]
) -> ScoreMatrix:
    values = np.array([[np.nan if v is None else v for v in row] for row in matrix], dtype=np.float64)
    return ScoreMatrix(tuple(tasks), tuple(rows), values)


def _not_learned(
    rows: Sequence[Row],
    tasks: Sequence[str],
    matrix: Sequence[Sequence[float | None]],
    most: Mapping[str, float | None],
) -> list[str]:
    """The trained tasks whose score after their own stage is not above always giving the commonest answer."""
    found = []
    for j, task in enumerate(tasks):
        own = next((i for i, row in enumerate(rows) if task in row.trains_on), None)
        value, floor = (matrix[own][j], most[task]) if own is not None else (None, None)
        if value is not None and floor is not None and value <= floor:
            found.append(task)
    return found
