"""Put examples to the model and take down its answers: the predictions of one task under one prompt."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from forgetmenot.engine import Arrangement, Learner
from forgetmenot.methods import Method
from forgetmenot.metrics import Measured, majority, measure
from forgetmenot.prompting import EncodedExamples, Prompt
from forgetmenot.tasks import Example, Task

NUMERIC = ("spearman", "pearson")
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """A task as it is put to the model: examples, their prompt, and their tokens.

    Attributes:
        examples: Those that are scored.
        encoded: Their tokens, in the same order.
    """

    task: Task
    prompt: Prompt
    examples: Sequence[Example]
    encoded: EncodedExamples
    _arranged: dict[int, Arrangement] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def truncated(self) -> dict[str, int]:
        """How many examples were cut to fit, and by how many tokens."""
        return self.encoded.truncated

    def count(self) -> int:
        """How many sequences the model is asked."""
        return len(self.encoded) * max(1, len(self.task.labels))

    def arranged(self, learner: Learner) -> Arrangement:
        """All candidates, or all answers, laid out for the model; kept, for every stage asks them again.

        Behind a soft prompt of another length they are laid out anew. It takes the memory of the tokens.
        """
        behind = len(learner.soft_tokens)
        if behind not in self._arranged:
            sequences = [s for one in self.encoded for s in (one.candidates or (one.answer,))]
            self._arranged.clear()
            self._arranged[behind] = learner.arrange(sequences)
        return self._arranged[behind]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The task's headline metric, then those read beside it."""
        return (self.task.metric, *self.task.further_metrics)

    @property
    def majority(self) -> float | None:
        """The score of always giving the commonest answer; None where that has no meaning."""
        if self.task.kind != "choice" or self.task.metric in NUMERIC:
            return None
        return majority(self.task.metric, [self.task.labels.index(str(e.label)) for e in self.examples])


@dataclass(frozen=True)
class Predictions:
    """What the model answered to one task's examples.

    Attributes:
        predicted: The label for a choice, a number for a graded one, the text for a generated answer; None
            where only the loss is asked.
        log_likelihoods: Of each candidate, in nats; of the answer where only the loss is asked.
        tokens: How many tokens were predicted, where only the loss is asked.
        routed: How many examples each part of a method that routes has answered.
    """

    ids: list[str]
    gold: list[str]
    predicted: list[str | None]
    log_likelihoods: list[list[float] | None]
    tokens: list[int | None]
    routed: Mapping[str, int] = field(default_factory=dict)


def ask(learner: Learner, method: Method, question: Question, advance: Any = None) -> Predictions:
    """Score or generate the answers of one task, each by the part of the method that it is routed to."""
    parts = method.route(learner, [example.prompt for example in question.encoded])
    if parts is None:
        return _answer(learner, question, advance)
    columns: dict[str, list[Any]] = {
        one.name: [None] * len(parts) for one in fields(Predictions) if one.name != "routed"
    }
    for part in sorted(set(parts)):
        chosen = [k for k, one in enumerate(parts) if one == part]
        some = replace(
            question,
            examples=[question.examples[k] for k in chosen],
            encoded=EncodedExamples.of([question.encoded[k] for k in chosen]),
        )
        with method.routed(learner, part):
            answers = _answer(learner, some, advance)
        for name, column in columns.items():
            for k, value in zip(chosen, getattr(answers, name), strict=True):
                column[k] = value
    return Predictions(**columns, routed=dict(sorted(Counter(parts).items())))


def _answer(learner: Learner, question: Question, advance: Any) -> Predictions:
    """The answers of the model as it stands."""
    task, encoded = question.task, question.encoded
    ids = [example.id for example in question.examples]
    nothing: list[Any] = [None] * len(ids)
    if task.labels:
        values = learner.log_likelihoods(question.arranged(learner), advance).numpy()
        scores = values.reshape(len(ids), len(task.labels))
        if task.metric in NUMERIC:
            values = np.array([float(label) for label in task.labels])
            predicted = [repr(float(_softmax(row) @ values)) for row in scores]
            gold = [repr(float(example.target or 0.0)) for example in question.examples]
        else:
            predicted = [task.labels[int(row.argmax())] for row in scores]
            gold = [str(example.label) for example in question.examples]
        return Predictions(ids, gold, list(predicted), list(scores.tolist()), nothing)
    gold = ["" if example.target is None else str(example.target) for example in question.examples]
    if task.metric == "loss":
        values = learner.log_likelihoods(question.arranged(learner), advance).numpy()
        counts = [len(example.answer.tokens) - example.answer.start for example in encoded]
        return Predictions(ids, gold, nothing, [[value] for value in values.tolist()], list(counts))
    texts = learner.generate([example.prompt for example in encoded], MAX_NEW_TOKENS, advance)
    return Predictions(ids, gold, [text.strip() for text in texts], nothing, nothing)


def for_metric(task: Task, metric: str, predictions: Predictions) -> tuple[Any, Any]:
    """Gold and predicted as `metrics.measure` takes them."""
    gold, predicted = predictions.gold, predictions.predicted
    if metric == "loss":
        sums = [row[0] for row in predictions.log_likelihoods if row is not None]
        return gold, np.column_stack([sums, np.array(predictions.tokens, dtype=np.float64)])
    if metric in NUMERIC:
        return np.array(gold, dtype=np.float64), np.array(predicted, dtype=np.float64)
    if task.labels:
        index = {label: k for k, label in enumerate(task.labels)}
        return np.array([index[g] for g in gold]), np.array([index[str(p)] for p in predicted])
    return gold, predicted


def score(task: Task, metric: str, predictions: Predictions) -> Measured:
    """The score of predictions."""
    return measure(metric, *for_metric(task, metric, predictions))


def write_predictions(path: Path, questions: Sequence[Question], answers: Sequence[Predictions]) -> None:
    """Write one row for each (task, example), after those that are there."""
    rows: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for question, one in zip(questions, answers, strict=True):
        rows["task"] += [question.task.name] * len(one.ids)
        rows["example"] += one.ids
        rows["gold"] += one.gold
        rows["predicted"] += one.predicted
        rows["log_likelihoods"] += one.log_likelihoods
        rows["tokens"] += one.tokens
        rows["prompt_text"] += [_readable(example) for example in question.examples]
    table = pa.table(rows, schema=_SCHEMA)
    if path.is_file():
        table = pa.concat_tables([parquet.read_table(path), table])
    parquet.write_table(table, path, compression="zstd")


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Read back what `write_predictions` wrote, by task; nothing where there is no file."""
    found: dict[str, Predictions] = {}
    if not path.is_file():
        return found
    columns = parquet.read_table(path).to_pydict()
    for row, task in enumerate(columns["task"]):
        one = found.setdefault(task, Predictions([], [], [], [], []))
        one.ids.append(columns["example"][row])
        one.gold.append(columns["gold"][row])
        one.predicted.append(columns["predicted"][row])
        one.log_likelihoods.append(columns["log_likelihoods"][row])
        one.tokens.append(columns["tokens"][row])
    return found


_SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "example": pa.string(),
        "gold": pa.string(),
        "predicted": pa.string(),
        "log_likelihoods": pa.list_(pa.float64()),
        "tokens": pa.int64(),
        "prompt_text": pa.string(),
    }
)


def _readable(example: Example) -> str:
    """An example's fields for a person to read."""
    if "messages" in example.fields:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in example.fields["messages"][:-1])
    return "\n".join(f"{name}: {value}" for name, value in example.fields.items())


def _softmax(row: np.ndarray) -> np.ndarray:
    weights = np.exp(row - row.max())
    normalised: np.ndarray = weights / weights.sum()
    return normalised
