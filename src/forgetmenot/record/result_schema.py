"""results.json, key by key. Adding a key is no break; changing or removing one raises `VERSION`.

`Results` is what a finished run's file holds, `record.assemble` makes it, `record.results` reads it. Nothing
in it differs between two equal runs: wall times are in timing.json.
"""

from typing import Any, NotRequired, TypedDict

VERSION = 1

Matrix = list[list[float | None]]
"""[stages][tasks]; null where `missing` says why."""
Bounds = list[float]
"""[low, high], 95 %."""
IntervalMatrix = list[list[Bounds | None]]


class StageRow(TypedDict):
    """A row of the matrix: a stage, the tasks it trains on, and whether it continues the last one."""

    name: str
    trains_on: list[str]
    follows: bool


class Haque(TypedDict, total=False):
    """The figures of Haque 2025, arXiv 2504.01241: by task, then on the whole."""

    forgetting: dict[str, float | None]
    learning: dict[str, float | None]
    forgetting_sum: float | None
    forgetting_mean: float | None
    learning_sum: float | None
    learning_mean: float | None
    pretrained_mean: float | None
    final_mean: float | None
    stage_mean: float | None
    diagonal_mean: float | None


class SummaryFigures(TypedDict, total=False):
    """The figures of the headline matrix.

    `over` names the tasks that they are taken over. `reasons` says why a figure is null, by the figure's
    name, and which tasks were left out, under "over".
    """

    average_performance: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    learning_accuracy: float | None
    haque: Haque
    over: list[str]
    reasons: dict[str, str]


class CrossFitted(TypedDict):
    """A figure that takes a maximum, cross-fitted; see `metrics.cross_fit`."""

    value: float
    interval: Bounds


class IntervalsOf(TypedDict, total=False):
    """Intervals over examples, of the headline matrix's cells and of each figure of the summary.

    Figures that take a maximum have none: their cross-fitted values have, under `cross_fitted`.
    """

    matrix: IntervalMatrix
    summary: dict[str, Bounds | None]
    cross_fitted: dict[str, CrossFitted | None]
    level: float
    resamples: int


class SignificanceTest(TypedDict, total=False):
    """What a task lost between its own stage and the end, on the same examples; see `PairedDifference`."""

    difference: float | None
    interval: Bounds | None
    p: float | None
    p_holm: float | None
    test: str | None
    forgotten: int | None
    gained: int | None
    beyond_chance: dict[str, float] | None
    n: int
    reason: str | None


class LeadOf(TypedDict):
    """How far the right label lies above the best other one, in nats; see `metrics.leads`."""

    before: float
    after: float
    difference: float
    interval: Bounds | None
    warns: bool


class VerdictOf(TypedDict):
    """What a task lost or gained between two models; see `metrics.verdicts.Verdict`."""

    decision: str
    before: float | None
    after: float | None
    difference: float | None
    interval: Bounds | None
    margin: float
    lower_within_margin: bool
    p: float | None
    p_holm: float | None
    test: str | None
    forgotten: int | None
    gained: int | None
    n: int
    units: int
    needed: int | None
    reason: str | None
    lead: NotRequired[LeadOf | None]


class MissingCell(TypedDict):
    """Why a cell of a reading is null."""

    stage: str
    task: str
    reason: str


class RecoveryOf(TypedDict, total=False):
    """What a way of asking brings back of each task, and what stays lost; see `metrics.recovery`."""

    recovery: dict[str, dict[str, VerdictOf]]


class ReadingResults(TypedDict):
    """One score matrix: one metric for each task, one choice of prompts, one way of scoring.

    `metric` is a name, or a name for each task where they differ; `version` that of each metric's formula.
    Maps go from task to value; `choices` has the words that stood for labels in the prompt. `unparsed`,
    [stages][tasks], counts written answers that name no label, where labels are read off what the model
    writes.
    """

    metric: str | dict[str, str]
    version: dict[str, int]
    prompt: dict[str, str]
    prompt_hash: dict[str, str]
    scoring: str
    normalization: str
    calibration: str
    generation: NotRequired[dict[str, dict[str, Any]]]
    demonstrations: dict[str, dict[str, Any]]
    choices: dict[str, dict[str, str]]
    matrix: Matrix
    n: dict[str, int]
    intervals: IntervalMatrix
    missing: list[MissingCell]
    truncated: dict[str, dict[str, int]]
    unparsed: NotRequired[list[list[int | None]]]
    realigned: NotRequired[dict[str, int]]
    recovery: NotRequired[dict[str, dict[str, VerdictOf]]]


class SavedReading(ReadingResults):
    """A reading that was taken of saved stages: a file under readings/."""

    tasks: list[str]
    stages: list[str]


class MissingPart(TypedDict):
    """Why a part of a probe has no value after a stage."""

    stage: str
    part: str
    reason: str


class Delta(TypedDict):
    """For each stage the mean over a probe's parts of (after − base)."""

    name: str
    values: list[float | None]


class ProbeTable(TypedDict):
    """What a probe found: `values`, `intervals`, `n` and `more` are [stages][parts]."""

    options: dict[str, Any]
    made_with: str
    parts: list[str]
    metrics: dict[str, str]
    stages: list[str]
    values: Matrix
    intervals: IntervalMatrix
    n: list[list[int | None]]
    more: list[list[dict[str, Any] | None]]
    missing: list[MissingPart]
    delta: Delta | None


class LearnedTokens(TypedDict):
    """How many answer tokens a stage learned from, epoch after epoch, and how many of them are past tasks'.

    `phases` are the quarters of its steps, each [new, rehearsed].
    """

    new: int
    rehearsed: int
    phases: list[list[int]]


class Cost(TypedDict, total=False):
    """What a run computed and keeps: input positions and bytes by stage, parameters of the model.

    `rehearsed` has the examples of earlier tasks in each later stage, for methods that rehearse.
    """

    positions: dict[str, dict[str, dict[str, int]]]
    answer_tokens: dict[str, LearnedTokens]
    memory_kept: dict[str, int]
    rehearsed: dict[str, int]
    parameters_added: dict[str, int]
    parameters: int
    past_data: bool
    truncated_in_training: dict[str, dict[str, int]]


class AskedAgain(TypedDict):
    """The base model asked `n` examples again, in another order and batch size; see `runs.again`.

    So many answers were `different`, and so many turned right or wrong (`flipped`; null for graded answers).
    `log_likelihood_apart` is the most that a candidate's or an answer's log-likelihood moved, in nats.
    """

    n: int
    different: int
    flipped: int | None
    log_likelihood_apart: NotRequired[float]


class Results(TypedDict):
    """The content of results.json.

    `matrix`, `metrics`, `majority`, `summary`, `intervals`, `noise_floor`, `verdicts` and `significance` are
    those of the headline reading, the first of `readings`. `verdicts` are by pair of models (`base_end`,
    `own_end`, `base_own`) and task. `majority` is the score of answering without looking (the
    metric's chance level), `not_learned` the trained tasks that did not rise above it.
    """

    version: int
    model: str
    method: str
    adapter: str
    seed: int | None
    split: str
    tasks: list[str]
    stages: list[StageRow]
    matrix: Matrix
    metrics: dict[str, str]
    majority: dict[str, float | None]
    not_learned: list[str]
    summary: SummaryFigures
    intervals: IntervalsOf
    noise_floor: dict[str, float | None]
    verdicts: dict[str, dict[str, VerdictOf]]
    significance: dict[str, SignificanceTest]
    readings: list[ReadingResults]
    probes: dict[str, ProbeTable]
    cost: Cost
    asked_again: NotRequired[dict[str, AskedAgain]]
    receipts: NotRequired[dict[str, Any]]
