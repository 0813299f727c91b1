"""Put examples to the model and take down its answers: the predictions of one task under one prompt."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.random import SeedSequence

from forgetmenot.engine import Answer, Arrangement, Decoding, Learner
from forgetmenot.methods import Method
from forgetmenot.metrics import NO_LABEL, Measured, majority, measure
from forgetmenot.prompting import EncodedExamples, Prompt
from forgetmenot.runs.choice import BY_LIKELIHOOD, NUMERIC, Way, read_choices
from forgetmenot.runs.partial import PartialAnswers
from forgetmenot.tasks import Example, Task
from forgetmenot.tasks.answers import extracted


@dataclass(frozen=True)
class Question:
    """A task as it is put to the model: examples, their prompt, and their tokens.

    Attributes:
        examples: Those that are scored.
        encoded: Their tokens, in the same order.
        way: How a choice among labels is read.
        reference: What calibration looks at.
        writing: How free answers are generated; None where none are.
    """

    task: Task
    prompt: Prompt
    examples: Sequence[Example]
    encoded: EncodedExamples
    way: Way = BY_LIKELIHOOD
    reference: EncodedExamples = field(default_factory=lambda: EncodedExamples.of([]))
    writing: "Writing | None" = None
    _arranged: dict[int, Arrangement] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def truncated(self) -> dict[str, int]:
        """How many examples were cut to fit, and by how many tokens."""
        return self.encoded.truncated

    def count(self) -> int:
        """How many sequences the model is asked."""
        return len(self.encoded) * (max(1, len(self.task.labels)) if self.way.scoring == "likelihood" else 1)

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
    def generated(self) -> bool:
        """Whether the model writes its answers."""
        return self.writing is not None or self.way.scoring == "generation"

    @property
    def described(self) -> dict[str, Any]:
        """How a choice is read or an answer written, and what is shown before it, as a reading records it."""
        shown = self.prompt.demonstrations
        written = {"generation": asdict(self.writing.decoding)} if self.writing else {}
        return {**asdict(self.way), **written, "demonstrations": shown.to_json() if shown else None}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The task's headline metric, then those read beside it."""
        return (self.task.metric, *self.task.further_metrics)

    @property
    def majority(self) -> float | None:
        """The score of always giving the commonest answer; None where that has no meaning."""
        if self.task.metric == "exact_match":
            return majority("exact_match", [self.gold_text(e) for e in self.examples])
        if self.task.kind != "choice" or self.task.metric in NUMERIC:
            return None
        return majority(self.task.metric, [self.task.labels.index(str(e.label)) for e in self.examples])

    def gold_text(self, example: Example) -> str:
        """What is read from an example's gold text, by the rules that an answer is read by."""
        gold = "" if example.target is None else str(example.target)
        return gold if self.writing is None else extracted(gold, self.task.generation.extract)


@dataclass(frozen=True)
class Writing:
    """How a question's answers are generated.

    Attributes:
        seed: What each answer's own seed comes from, where answers are drawn.
        margins: Whether each token's margin is kept.
        most: The most positions in a batch; None for what suits the device.
        by_vllm: Whether vLLM writes.
    """

    decoding: Decoding
    seed: int = 0
    margins: bool = False
    most: int | None = None
    by_vllm: bool = False


@dataclass(frozen=True)
class Predictions:
    """What the model answered to one task's examples.

    Attributes:
        predicted: The label for a choice, a number for a graded one, the text for a generated answer; None
            where only the loss is asked.
        log_likelihoods: Of each candidate, in nats; of the answer where only the loss is asked.
        tokens: How many tokens were predicted, where only the loss is asked.
        generated: What was written, where `predicted` was read off that; `predicted` is None where a choice
            was asked and it names none.
        margins: How far the likeliest logit lay above the second, for each token of it, where that was asked.
        routed: How many examples each part of a method that routes has answered.
    """

    ids: list[str]
    gold: list[str]
    predicted: list[str | None]
    log_likelihoods: list[list[float] | None]
    tokens: list[int | None]
    generated: list[str | None] = field(default_factory=list)
    margins: list[list[float] | None] = field(default_factory=list)
    routed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Where nothing is said of what was written, nothing was."""
        for column in (self.generated, self.margins):
            if not column:
                column.extend([None] * len(self.ids))

    @property
    def unparsed(self) -> int:
        """How many written answers name no label; each counts as a wrong answer."""
        return sum(
            label is None and text is not None
            for label, text in zip(self.predicted, self.generated, strict=True)
        )


def ask(
    learner: Learner,
    method: Method,
    question: Question,
    advance: Any = None,
    partial: PartialAnswers | None = None,
) -> Predictions:
    """Score or generate the answers of one task, each by the part of the method that it is routed to.

    Answers that are generated are kept in `partial` as they come.
    """
    parts = method.route(learner, [example.prompt for example in question.encoded])
    if parts is None:
        return _answer(learner, question, advance, partial)
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
            answers = _answer(learner, some, advance, partial)
        for name, column in columns.items():
            for k, value in zip(chosen, getattr(answers, name), strict=True):
                column[k] = value
    return Predictions(**columns, routed=dict(sorted(Counter(parts).items())))


def _answer(
    learner: Learner, question: Question, advance: Any, partial: PartialAnswers | None
) -> Predictions:
    """The answers of the model as it stands."""
    task, encoded = question.task, question.encoded
    ids = [example.id for example in question.examples]
    nothing: list[Any] = [None] * len(ids)
    if task.labels:
        numeric = task.metric in NUMERIC
        gold = [repr(float(e.target or 0.0)) if numeric else str(e.label) for e in question.examples]
        predicted, log_likelihoods, written = read_choices(learner, question, advance)
        return Predictions(ids, gold, predicted, log_likelihoods, nothing, written)
    gold = [question.gold_text(example) for example in question.examples]
    if question.writing is None:
        values = learner.log_likelihoods(question.arranged(learner), advance).numpy()
        counts = [len(example.answer.tokens) - example.answer.start for example in encoded]
        return Predictions(ids, gold, nothing, [[value] for value in values.tolist()], list(counts))
    answers = _write(learner, question, question.writing, advance, partial)
    read: list[str | None] = [extracted(a.text, task.generation.extract) for a in answers]
    margins: list[list[float] | None] = [list(a.margins) or None for a in answers]
    return Predictions(ids, gold, read, nothing, list(nothing), [a.text for a in answers], margins)


def _write(
    learner: Learner, question: Question, writing: Writing, advance: Any, partial: PartialAnswers | None
) -> list[Answer]:
    """Generate the answers that an interrupted evaluation has not kept."""
    seeds = None
    if writing.decoding.temperature > 0:
        names = [f"{question.task.name}/{name}".encode() for name in question.encoded.ids]
        seeds = [int(SeedSequence([writing.seed, *name]).generate_state(1)[0]) for name in names]
    prompts = [example.prompt for example in question.encoded]
    if writing.by_vllm:
        return learner.write_by_vllm(
            prompts,
            writing.decoding,
            seeds=seeds,
            margins=writing.margins,
            advance=advance,
        )
    done, save = partial.begin(learner.model, question.encoded, writing.decoding) if partial else ({}, None)
    return learner.write(
        prompts,
        writing.decoding,
        seeds=seeds,
        margins=writing.margins,
        most=writing.most,
        advance=advance,
        done=done,
        save=save,
    )


def for_metric(task: Task, metric: str, predictions: Predictions) -> tuple[Any, Any]:
    """Gold and predicted as `metrics.measure` takes them."""
    gold, predicted = predictions.gold, predictions.predicted
    if metric == "loss":
        sums = [row[0] for row in predictions.log_likelihoods if row is not None]
        return gold, np.column_stack([sums, np.array(predictions.tokens, dtype=np.float64)])
    if metric == "sari":
        fields = {example.id: example.fields for example in (*task.select, *task.score)}
        return [
            (str(fields[k][task.source]), g) for k, g in zip(predictions.ids, gold, strict=True)
        ], predicted
    if metric in NUMERIC:
        return np.array(gold, dtype=np.float64), np.array(predicted, dtype=np.float64)
    if task.labels:
        index: dict[str | None, int] = {label: k for k, label in enumerate(task.labels)}
        index[None] = NO_LABEL
        return np.array([index[g] for g in gold]), np.array([index[p] for p in predicted])
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
        rows["generated"] += one.generated
        rows["margins"] += one.margins
        rows["prompt_text"] += [_readable(example) for example in question.examples]
    table = pa.table(rows, schema=_SCHEMA)
    if path.is_file():
        table = pa.concat_tables([parquet.read_table(path), table], promote_options="default")
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
        for name, column in (("generated", one.generated), ("margins", one.margins)):
            column.append(columns[name][row] if name in columns else None)
    return found


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
    }
)


def _readable(example: Example) -> str:
    """An example's fields for a person to read."""
    if "messages" in example.fields:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in example.fields["messages"][:-1])
    return "\n".join(f"{name}: {value}" for name, value in example.fields.items())
