"""The assembly of results.json from predictions: the score matrices of a run and the figures from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from forgetmenot.metrics import (
    Answers,
    MatrixRow,
    Measured,
    ScoreMatrix,
    bootstrap,
    cell_intervals,
    margin_of,
    measure,
    metric_named,
    noise_floor,
    recoveries,
    summarize,
    verdicts,
)
from forgetmenot.record.predictions import Predictions, column
from forgetmenot.record.result_schema import (
    VERSION,
    Cost,
    IntervalsOf,
    Matrix,
    ReadingResults,
    RecoveryOf,
    Results,
    SignificanceTest,
    SummaryFigures,
    VerdictOf,
)

NOT_ASKED = "The stage's weights were no longer on disk when this task was added."
NOT_LEARNED = "Realigned, a task is asked of the base model and from its own stage on."


@dataclass(frozen=True)
class AskedTask:
    """A task as one reading asked it, and what came back.

    Attributes:
        metrics: The headline metric, then those read beside it.
        answers: After each stage, the base first; None where the stage was not asked.
        scoring: How a choice among labels was read (`scoring`, `normalization`, `calibration`); None for
            tasks that choose among none.
        generation: How answers were generated and read; None where none were.
        demonstrations: What was shown before each example; None where nothing was.
        choices: Label to the words that stood for it in the prompt; empty for a task without labels.
        written: Whether labels were read off what the model wrote.
        truncated: How many examples were cut to fit, and by how many tokens.
        realigned: On how many training examples the model was aligned anew before it was asked.
        begins: The first stage after the base that was to be asked.
    """

    task: str
    metrics: tuple[str, ...]
    prompt: str
    prompt_hash: str
    answers: Sequence[Predictions | None]
    scoring: Mapping[str, str] | None = None
    generation: Mapping[str, Any] | None = None
    demonstrations: Mapping[str, Any] | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    written: bool = False
    truncated: Mapping[str, int] = field(default_factory=lambda: {"examples": 0, "tokens": 0})
    realigned: int = 0
    begins: int = 0

    @property
    def n(self) -> int:
        """How many examples were asked."""
        return next((len(one) for one in self.answers if one is not None), 0)

    def column(self, metric: str) -> Answers:
        """The answers as one of the metrics takes them."""
        return column(metric, self.answers)

    @property
    def unmeasured(self) -> list[Measured | None]:
        """Why a stage's answers have no score, whatever the metric; None where they have one."""
        return [
            Measured(None, NOT_LEARNED, 0) if one is None and 0 < k < self.begins else _unmeasured(one)
            for k, one in enumerate(self.answers)
        ]


def assemble(
    rows: Sequence[MatrixRow],
    readings: Sequence[Sequence[AskedTask]],
    described: Mapping[str, Any],
    cost: Cost,
    probes: Mapping[str, Any] | None = None,
) -> Results:
    """Derive what results.json holds.

    Args:
        rows: The stages, the base first.
        readings: What each reading asked, the headline first; it asks every task.
        described: What the run was: `model`, `method`, `adapter`, `seed`, `split`; and the `margins` that
            are set, as `metrics.margin_of` takes them.
        cost: What it computed and keeps.
        probes: What each probe found, by name.
    """
    headline = readings[0]
    tasks = [asked.task for asked in headline]
    metrics = {asked.task: asked.metrics[0] for asked in headline}
    columns = {asked.task: asked.column(asked.metrics[0]) for asked in headline}
    matrix = _values(_measure(headline, metrics))
    margins = {task: margin_of(task, name, described.get("margins")) for task, name in metrics.items()}
    judged = verdicts(rows, columns, margins)
    chance = {task: metric_named(one.metric).chance_level(one.gold) for task, one in columns.items()}

    def recovered(asked: Sequence[AskedTask], chosen: Mapping[str, str]) -> RecoveryOf:
        return {} if asked is headline else recovery(rows, columns, asked, chosen, margins)

    return Results(
        model=described["model"],
        method=described["method"],
        adapter=described["adapter"],
        seed=described["seed"],
        split=described["split"],
        version=VERSION,
        tasks=tasks,
        stages=[{"name": r.name, "trains_on": list(r.trains_on), "follows": r.follows} for r in rows],
        matrix=matrix,
        metrics=metrics,
        majority=chance,
        not_learned=not_learned(rows, tasks, matrix, chance),
        summary=cast(SummaryFigures, summarize(score_matrix(rows, tasks, matrix), metrics).to_json()),
        intervals=cast(IntervalsOf, bootstrap(rows, columns).to_json()),
        noise_floor=noise_floor(rows, columns),
        verdicts={
            pair: {task: cast(VerdictOf, one.to_json()) for task, one in found.items()}
            for pair, found in judged.items()
        },
        significance={
            task: cast(SignificanceTest, one.paired.to_json()) for task, one in judged["own_end"].items()
        },
        readings=[
            cast(ReadingResults, {**reading(rows, asked, chosen, tasks), **recovered(asked, chosen)})
            for asked in readings
            for chosen in _metric_choices(asked)
        ],
        probes=dict(probes or {}),
        cost=cost,
    )


def reading(
    rows: Sequence[MatrixRow], asked: Sequence[AskedTask], metrics: Mapping[str, str], tasks: Sequence[str]
) -> ReadingResults:
    """One matrix: one choice of metric for each task; tasks that the choice leaves out are null.

    Args:
        rows: The stages, the base first.
        asked: What was asked.
        metrics: The metric of each task that the choice is of.
        tasks: The columns.
    """
    columns = {one.task: one.column(metrics[one.task]) for one in asked if one.task in metrics}
    cells = _measure(asked, metrics)
    spans = [[list(cell) if cell else None for cell in row] for row in cell_intervals(rows, columns)]
    place = {task: k for k, task in enumerate(columns)}
    names = sorted(set(metrics.values()))
    found: dict[str, Any] = {
        "metric": names[0] if len(names) == 1 else dict(metrics),
        "version": {name: metric_named(name).version for name in names},
        "prompt": {one.task: one.prompt for one in asked},
        "prompt_hash": {one.task: one.prompt_hash for one in asked},
        **_how(asked),
        "matrix": _values(cells, tasks),
        "n": {one.task: one.n for one in asked if one.task in columns},
        "intervals": [[row[place[t]] if t in place else None for t in tasks] for row in spans],
        "missing": [
            {"stage": rows[i].name, "task": task, "reason": str(cell.reason)}
            for task, column in cells.items()
            for i, cell in enumerate(column)
            if cell.value is None
        ],
        "truncated": {one.task: dict(one.truncated) for one in asked if one.truncated["examples"]},
    }
    written = {one.task: one for one in asked if one.written}
    if written:
        found["unparsed"] = [
            [
                said.unparsed if t in written and (said := written[t].answers[i]) is not None else None
                for t in tasks
            ]
            for i in range(len(rows))
        ]
    return cast(ReadingResults, found)


def recovery(
    rows: Sequence[MatrixRow],
    columns: Mapping[str, Answers],
    asked: Sequence[AskedTask],
    metrics: Mapping[str, str],
    margins: Mapping[str, float],
) -> RecoveryOf:
    """What a way of asking brings back; nothing where it is no other score of the same answers.

    Args:
        rows: The stages, the base first.
        columns: Task to its answers as the run asks.
        asked: What was asked otherwise.
        metrics: The metric of each task.
        margins: Task to ε.
    """
    helped = {one.task: one.column(metrics[one.task]) for one in asked if one.task in metrics}
    columns = {task: one for task, one in columns.items() if task in helped}
    helped = {task: one for task, one in helped.items() if task in columns}
    found = {
        task: {name: cast(VerdictOf, one.to_json()) for name, one in both.items()}
        for task, both in recoveries(rows, columns, helped, margins).items()
    }
    return {"recovery": found} if found else {}


def _how(asked: Sequence[AskedTask]) -> dict[str, Any]:
    """How choices were read and answers written, and what was shown before each task's examples."""
    plain = {"scoring": "likelihood", "normalization": "none", "calibration": "none"}
    realigned = {one.task: one.realigned for one in asked if one.realigned}
    generation = {one.task: dict(one.generation) for one in asked if one.generation is not None}
    return {
        **next((one.scoring for one in asked if one.scoring is not None), plain),
        **({"generation": generation} if generation else {}),
        "demonstrations": {one.task: dict(one.demonstrations) for one in asked if one.demonstrations},
        "choices": {one.task: dict(one.choices) for one in asked if one.choices},
        **({"realigned": realigned} if realigned else {}),
    }


def _metric_choices(asked: Sequence[AskedTask]) -> list[dict[str, str]]:
    """Task → metric for each reading: every task's headline, then each further metric where it applies."""
    further = dict.fromkeys(metric for one in asked for metric in one.metrics[1:])
    return [
        {one.task: one.metrics[0] for one in asked},
        *({one.task: metric for one in asked if metric in one.metrics[1:]} for metric in further),
    ]


def _unmeasured(answers: Predictions | None) -> Measured | None:
    if answers is None:
        return Measured(None, NOT_ASKED, 0)
    return Measured(None, answers.not_finite, len(answers)) if answers.not_finite else None


def _measure(asked: Sequence[AskedTask], metrics: Mapping[str, str]) -> dict[str, list[Measured]]:
    """The cells of each task that has a metric, the base first."""
    cells = {}
    for one in asked:
        if one.task in metrics:
            answers = one.column(metrics[one.task])
            cells[one.task] = [
                none or measure(answers.metric, answers.gold, predicted)
                for none, predicted in zip(one.unmeasured, answers.predicted, strict=True)
            ]
    return cells


def _values(cells: Mapping[str, Sequence[Measured]], tasks: Sequence[str] | None = None) -> Matrix:
    """Stage by stage, the value of each task, None where it is missing."""
    height = len(next(iter(cells.values())))
    return [
        [cells[task][i].value if task in cells else None for task in tasks or cells] for i in range(height)
    ]


def score_matrix(rows: Sequence[MatrixRow], tasks: Sequence[str], matrix: Matrix) -> ScoreMatrix:
    """The matrix as figures are taken from it."""
    values = np.array([[np.nan if v is None else v for v in row] for row in matrix], dtype=np.float64)
    return ScoreMatrix(tuple(tasks), tuple(rows), values)


def not_learned(
    rows: Sequence[MatrixRow], tasks: Sequence[str], matrix: Matrix, chance: Mapping[str, float | None]
) -> list[str]:
    """The trained tasks whose score after their own stage is not above answering without looking."""
    found = []
    for j, task in enumerate(tasks):
        own = next((i for i, row in enumerate(rows) if task in row.trains_on), None)
        value, floor = (matrix[own][j], chance[task]) if own is not None else (None, None)
        if value is not None and floor is not None and value <= floor:
            found.append(task)
    return found
