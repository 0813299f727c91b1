"""Tasks with receipts: further fields of their examples, and prompts that show them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.metrics.task_metrics import metric_named
from forgetmenot.prompting import choose_prompt, prompts_of
from forgetmenot.prompting.receipt_prompt import CONFIDENCE, LABEL, SMALL_MODEL, SOURCE, with_receipt
from forgetmenot.receipts.classifier import Classifier, Texts
from forgetmenot.receipts.held_out import SEED, HeldOut, Labelled, answer_held_out
from forgetmenot.receipts.settings import TFIDF, ReceiptSettings
from forgetmenot.tasks import Example, Task

SPLITS = ("train", "select", "score")


@dataclass(frozen=True)
class Receipt:
    """What the small model says about one example: the likeliest label, and how likely."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Receipts:
    """The receipts of one task.

    Attributes:
        model: The small model as the config names it.
        size: It in words, for the prompt.
        source: The task that it was fitted on.
        parameters: How many numbers it has.
        temperature: What its scores are divided by, fitted on the source's `select`.
        calibrated_on: How many examples of `select` that were; with none the temperature is 1.
        seconds: What fitting and asking took.
        given: For each split a receipt for each example, in order.
    """

    model: str
    size: str
    source: str
    parameters: int
    temperature: float
    calibrated_on: int
    seconds: float
    given: Mapping[str, Sequence[Receipt]]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Receipts":
        """Read back what `to_json` wrote."""
        given = {split: [Receipt(**one) for one in rows] for split, rows in content["given"].items()}
        return cls(**{**content, "given": given})

    def described(self, task: Task) -> dict[str, Any]:
        """All but the receipts themselves, and how often these are right in each split."""
        about = self.to_json()
        del about["given"], about["size"], about["seconds"]  # equal runs take unequal times
        right = {
            split: float(
                np.mean([one.label == e.label for one, e in zip(rows, split_of(task, split), strict=True)])
            )
            for split, rows in self.given.items()
            if rows
        }
        return {**about, "accuracy": right}


def issue_receipts(
    task: Task,
    source: Task,
    settings: ReceiptSettings,
    make: Callable[[], Classifier],
) -> Receipts:
    """Fit the small model on `source` and let it answer `task`, which may be the same.

    It reads the fields that the `default` prompt names, in the example's order.

    Raises:
        UserError: A task is not a choice, labels or numbers of texts differ, or there is nothing
            to learn from.
    """
    _check(task, source)
    learned = list(source.train)
    if settings.limit is not None and settings.limit < len(learned):
        drawn = np.random.default_rng(SEED).permutation(len(learned))[: settings.limit]
        learned = [learned[row] for row in sorted(drawn.tolist())]
    texts, asked_texts = _reader(source), _reader(task)
    train, select = (_labelled(source, texts, examples) for examples in (learned, source.select))
    asked = {split: [asked_texts(one) for one in split_of(task, split)] for split in SPLITS}
    widths = {len(one) for one in (*train.texts, *(one for group in asked.values() for one in group))}
    if len(widths) > 1:
        raise UserError(
            f"receipts.sources: examples of {task.name!r} and {source.name!r} have different numbers of "
            "texts."
        )
    began = time.perf_counter()
    try:
        found = answer_held_out(make, train, select, asked, settings.folds)
    except UserError as error:
        raise UserError(f"receipts for task {task.name!r}: {error}") from error
    return Receipts(
        model=settings.model or TFIDF,
        size=_in_words(settings, found),
        source=source.name,
        parameters=found.parameters,
        temperature=found.temperature,
        calibrated_on=len(select.texts),
        seconds=round(time.perf_counter() - began, 1),
        given={split: _receipts(source, values) for split, values in found.probabilities.items()},
    )


def receipted(task: Task, receipts: Receipts, *, confidence: bool = True) -> Task:
    """The task with receipts in its examples' fields and in all of its prompts.

    The label's words are each prompt's own; the field holds its name.
    """

    def with_fields(example: Example, receipt: Receipt) -> Example:
        fields = {
            **example.fields,
            LABEL: receipt.label,
            CONFIDENCE: f"{receipt.confidence:.3f}",
            SMALL_MODEL: receipts.size,
            SOURCE: receipts.source,
        }
        return replace(example, fields=fields)

    prompts = {}
    for name, prompt in prompts_of(task).items():
        plain = asdict(with_receipt(prompt, confidence=confidence))
        del (
            plain["name"],
            plain["demonstrations"],
        )  # what is shown before an example is chosen with the prompt
        prompts[name] = plain
    splits = {
        split: [with_fields(*pair) for pair in zip(split_of(task, split), rows, strict=True)]
        for split, rows in receipts.given.items()
    }
    return replace(
        task, prompts=prompts, train=splits["train"], select=splits["select"], score=splits["score"]
    )


def classifier_maker(settings: ReceiptSettings) -> Callable[[], Classifier]:
    """What makes the small model of the settings.

    Raises:
        UserError: What it needs is not installed, or there is no such model.
    """
    if settings.model == TFIDF:
        from forgetmenot.receipts.tfidf import TfidfClassifier, check_installed

        check_installed()
        return TfidfClassifier
    from forgetmenot.receipts.encoder_model import EncoderClassifier, check_model

    check_model(settings)
    return lambda: EncoderClassifier(settings)


def split_of(task: Task, split: str) -> Sequence[Example]:
    """The examples of a split by its name."""
    examples: Sequence[Example] = getattr(task, split)
    return examples


def takes_receipts(task: Task) -> bool:
    """Whether a task chooses among labels of which one is right: a grade (STS-B) is no label."""
    return task.kind == "choice" and metric_named(task.metric).correct is not None


def _check(task: Task, source: Task) -> None:
    for checked in (task, source):
        if not takes_receipts(checked):
            raise UserError(
                f"receipts: task {checked.name!r} does not choose among labels of which one is right, so a "
                "small model cannot answer it; leave it out."
            )
    if not source.train:
        raise UserError(
            f"receipts: task {source.name!r} has no train split to fit a small model on; name another task "
            f"for it in receipts.sources, such as receipts.sources.{task.name}=sst2."
        )
    if set(task.labels) != set(source.labels):
        raise UserError(
            f"receipts.sources: {task.name!r} has the labels {', '.join(task.labels)}, but {source.name!r} "
            f"has {', '.join(source.labels)}; a small model only knows the labels that it was trained on."
        )


def _reader(task: Task) -> Callable[[Example], Texts]:
    """What takes from an example the texts that the small model reads."""
    named = choose_prompt(task, "default").fields
    return lambda example: tuple(str(value) for name, value in example.fields.items() if name in named)


def _labelled(task: Task, texts: Callable[[Example], Texts], examples: Sequence[Example]) -> Labelled:
    index = {label: k for k, label in enumerate(task.labels)}
    labels = np.array([index[str(one.label)] for one in examples], dtype=np.int64)
    return Labelled([texts(one) for one in examples], labels, task.labels)


def _receipts(source: Task, probabilities: np.ndarray) -> list[Receipt]:
    best = probabilities.argmax(axis=1)
    return [
        Receipt(source.labels[k], float(row[k])) for k, row in zip(best.tolist(), probabilities, strict=True)
    ]


def _in_words(settings: ReceiptSettings, found: HeldOut) -> str:
    """The small model as the prompt speaks of it: the paper says "334M-parameter model"."""
    if settings.model == TFIDF:
        return "small word-count model"
    millions = found.parameters / 1e6
    return f"{millions:.0f}M-parameter model" if millions >= 1 else f"{millions:.1g}M-parameter model"
