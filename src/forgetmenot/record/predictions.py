"""Predictions on disk: what the model answered to each example, and how a metric takes it.

predictions.parquet has one row for each (task, example). What belongs to a task as a whole, the order of its
labels, is in the file's metadata under "forgetmenot", as JSON: {"labels": {task: [label, …]}}.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from forgetmenot.errors import UserError
from forgetmenot.metrics import NO_LABEL, Answers, Measured, measure, metric_named
from forgetmenot.record.damage import damaged
from forgetmenot.record.seal import read_checked

_SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "example": pa.string(),
        "gold": pa.string(),
        "predicted": pa.string(),
        "log_likelihoods": pa.list_(pa.float64()),
        "tokens": pa.int64(),
        "generated": pa.string(),
        "margins": pa.list_(pa.float64()),
        "prompt_text": pa.string(),
        "source": pa.string(),
        "cluster": pa.string(),
    }
)
_METADATA = b"forgetmenot"


NOT_FINITE = "The model's numbers are not finite (nan or infinite)"
"""What the reason of a cell begins with that has no score because of that."""


@dataclass(frozen=True)
class Predictions:
    """What the model answered to one task's examples; columns that are not given are filled with None.

    Attributes:
        ids: The examples' names.
        gold: What is right: a label, a number for a graded choice, or a text.
        predicted: The label for a choice, a number for a graded one, the text for a generated answer; None
            where only the loss is measured, and where a written answer names no label.
        log_likelihoods: Of each candidate, in the order of `labels`, in nats; of the answer where only the
            loss is measured.
        tokens: How many tokens were predicted, where only the loss is asked.
        generated: What was written, where `predicted` was read off that.
        margins: How far the likeliest logit lay above the second, for each token of it, where that was asked.
        prompt_text: The example's fields for people to read.
        source: The text that was rewritten, where the answer is a rewriting of it.
        cluster: What examples that are not independent share, such as the passage that several questions are
            on; None for an independent example.
        labels: The labels of a choice, in the task's order; empty for other tasks, None where the file was
            written by a version that did not keep them.
        routed: How many examples each part of a method that routes has answered; not in the file.
    """

    ids: list[str]
    gold: list[str]
    predicted: list[str | None]
    log_likelihoods: list[list[float] | None] = field(default_factory=list)
    tokens: list[int | None] = field(default_factory=list)
    generated: list[str | None] = field(default_factory=list)
    margins: list[list[float] | None] = field(default_factory=list)
    prompt_text: list[str | None] = field(default_factory=list)
    source: list[str | None] = field(default_factory=list)
    cluster: list[str | None] = field(default_factory=list)
    labels: tuple[str, ...] | None = ()
    routed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _COLUMNS[3:]:
            column = getattr(self, name)
            if not column:
                column.extend([None] * len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """The number of each example's cluster, from 0 on; None if all examples are independent."""
        if not any(one is not None for one in self.cluster):
            return None
        names = [f"={name}" if name is not None else f"#{k}" for k, name in enumerate(self.cluster)]
        numbers = np.unique(names, return_inverse=True)[1].astype(np.int64)
        return numbers if numbers.max() + 1 < len(numbers) else None

    @property
    def options(self) -> int | None:
        """How many labels there were to choose among; None where none were."""
        return len(self.labels) if self.labels else None

    @property
    def leads(self) -> NDArray[np.float64] | None:
        """How far the right label's log-likelihood lies above the best other one, [n], in nats.

        None where labels are not chosen by likelihood, or what is right is no label.
        """
        labels = self.labels or ()
        if len(labels) < 2 or not self.ids:
            return None
        if any(row is None or len(row) != len(labels) for row in self.log_likelihoods):
            return None
        if any(gold not in labels for gold in self.gold):
            return None
        values = np.array(self.log_likelihoods, dtype=np.float64)
        right = np.array([labels.index(gold) for gold in self.gold])
        rows = np.arange(len(values))
        own = values[rows, right]
        values[rows, right] = -np.inf
        found: NDArray[np.float64] = own - values.max(axis=1)
        return found

    @property
    def not_finite(self) -> str | None:
        """Why these answers have no score; None where every number that they were read from is finite.

        Where neither likelihoods nor a text are there, the logits to write by were no numbers.
        """
        count = sum(
            (said is None and text is None) if row is None else not all(map(math.isfinite, row))
            for row, said, text in zip(self.log_likelihoods, self.predicted, self.generated, strict=True)
        )
        if not count:
            return None
        return (
            f"{NOT_FINITE} on {count} of {len(self)} examples: it has diverged in training, or its weights "
            "are broken."
        )

    @property
    def unparsed(self) -> int:
        """How many written answers name no label; each counts as a wrong answer."""
        return sum(
            label is None and text is not None
            for label, text in zip(self.predicted, self.generated, strict=True)
        )

    def right(self, metric: str) -> list[bool] | None:
        """Whether each answer is right; None for a metric whose answers are graded, or without a score."""
        chosen = metric_named(metric)
        if chosen.correct is None or self.not_finite:
            return None
        if chosen.reads == "labels":  # whatever their order, which older files did not keep
            return [said == gold for said, gold in zip(self.predicted, self.gold, strict=True)]
        right: list[bool] = chosen.correct(*as_measured(metric, self)).tolist()
        return right


_COLUMNS = (
    "ids",
    "gold",
    "predicted",
    "log_likelihoods",
    "tokens",
    "generated",
    "margins",
    "prompt_text",
    "source",
    "cluster",
)
"""The columns of `Predictions` that the file has too; its "example" is their "ids"."""


def as_measured(metric: str, predictions: Predictions) -> tuple[Any, Any]:
    """Gold and predicted as `metrics.measure` takes them; what they are, the metric's `reads` says.

    Raises:
        UserError: They were written by a version that did not keep what the metric needs.
    """
    gold, predicted = predictions.gold, predictions.predicted
    reads = metric_named(metric).reads
    if reads == "labels":
        if predictions.labels is None:
            raise UserError(
                f"{metric} needs the order of the labels, which the version of forgetmenot that wrote these "
                "predictions did not save; run the same command with --fresh."
            )
        index: dict[str | None, int] = {label: k for k, label in enumerate(predictions.labels)}
        index[None] = NO_LABEL
        return np.array([index[g] for g in gold]), np.array([index[p] for p in predicted])
    if reads == "numbers":
        return np.array(gold, dtype=np.float64), np.array(predicted, dtype=np.float64)
    if reads == "likelihoods":
        sums = [row[0] for row in predictions.log_likelihoods if row is not None]
        return gold, np.column_stack([sums, np.array(predictions.tokens, dtype=np.float64)])
    if reads == "rewrites":
        return list(zip(predictions.source, gold, strict=True)), predicted
    return gold, predicted


def score(metric: str, predictions: Predictions) -> Measured:
    """The score of predictions by a metric: None where their numbers are not finite."""
    reason = predictions.not_finite
    if reason is not None:
        return Measured(None, reason, len(predictions))
    return measure(metric, *as_measured(metric, predictions))


def require_finite(task: str, answers: Iterable[Predictions]) -> None:
    """Refuse to compare answers that have no score.

    Raises:
        UserError: With the reason.
    """
    for one in answers:
        if one.not_finite:
            raise UserError(f"task {task!r}: {one.not_finite}")


def column(metric: str, stages: Sequence[Predictions | None]) -> Answers:
    """The answers after each stage as a metric takes them; None where there are none, or without a score.

    Args:
        metric: The task's.
        stages: The base first, with an answer to one of them at least.
    """
    pairs = [None if one is None else as_measured(metric, one) for one in stages]
    gold = next(pair[0] for pair in pairs if pair is not None)
    predicted = [
        None if one is None or pair is None or one.not_finite else pair[1]
        for one, pair in zip(stages, pairs, strict=True)
    ]
    there = next(one for one in stages if one is not None)
    leads = [None if one is None or one.not_finite else one.leads for one in stages]
    return Answers(metric, gold, predicted, there.clusters, there.options, leads)


def write_predictions(path: Path, answers: Mapping[str, Predictions]) -> None:
    """Write one row for each (task, example), after those that are there.

    Args:
        path: In the folder of a stage that is not committed yet.
        answers: Task to its predictions.
    """
    rows: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for task, predictions in answers.items():
        rows["task"] += [task] * len(predictions)
        for name in _COLUMNS:
            rows["example" if name == "ids" else name] += getattr(predictions, name)
    table, labels = pa.table(rows, schema=_SCHEMA), {}
    if path.is_file():
        before = _read(path.read_bytes())
        labels = _labels(before)
        table = pa.concat_tables([before, table], promote_options="default")
    labels |= {task: one.labels for task, one in answers.items() if one.labels is not None}
    metadata = {_METADATA: json.dumps({"labels": labels}, ensure_ascii=False).encode()}
    with path.open("wb") as stream:  # pyarrow takes a path with a colon for an address
        parquet.write_table(table.replace_schema_metadata(metadata), stream, compression="zstd")


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Read back what `write_predictions` wrote, by task; nothing where no file was written.

    Raises:
        UserError: The file is damaged.
    """
    content = read_checked(path)
    if content is None:
        return {}
    try:
        return _by_task(_read(content))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"it cannot be read ({str(error).splitlines()[0]})") from error


def _by_task(table: pa.Table) -> dict[str, Predictions]:
    found: dict[str, Predictions] = {}
    labels, columns = _labels(table), table.to_pydict()
    rows: dict[str, list[int]] = {}
    for row, task in enumerate(columns["task"]):
        rows.setdefault(task, []).append(row)
    for task, own in rows.items():
        taken: dict[str, Any] = {
            name: [columns["example" if name == "ids" else name][row] for row in own]
            for name in _COLUMNS
            if name == "ids" or name in columns
        }
        found[task] = Predictions(**taken, labels=labels.get(task))
    return found


def _read(content: bytes) -> pa.Table:
    with parquet.ParquetFile(pa.BufferReader(content)) as file:  # parquet.read_table would import pandas
        return file.read()


def _labels(table: pa.Table) -> dict[str, tuple[str, ...]]:
    """The labels of each task, as the file's metadata has them."""
    content = (table.schema.metadata or {}).get(_METADATA)
    kept = json.loads(content)["labels"] if content is not None else {}
    return {task: tuple(labels) for task, labels in kept.items()}
