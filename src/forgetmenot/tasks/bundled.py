"""The four small tasks that come with the program, in the four forms of the paper's GLUE tasks."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from forgetmenot.tasks.rows import Converted, cell, examples, label_in
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.splits import divide
from forgetmenot.tasks.tables import Row, read_jsonl
from forgetmenot.tasks.task import Example, Task


@dataclass(frozen=True, slots=True)
class BundledTask:
    """What the columns of a bundled task are."""

    title: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    further_metrics: tuple[str, ...] = ()


BUNDLED: dict[str, BundledTask] = {
    "qs-sentiment": BundledTask(
        "is a sentence negative or positive?", ("sentence",), ("negative", "positive")
    ),
    "qs-paraphrase": BundledTask(
        "do two sentences mean the same?",
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        ("f1",),
    ),
    "qs-acceptability": BundledTask(
        "is a sentence acceptable?", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)
    ),
    "qs-inference": BundledTask(
        "does a premise entail a hypothesis?",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
    ),
}


def load_bundled(name: str, _data_dir: Path | None = None) -> Task:
    """Load a key of BUNDLED from the files that are installed with the package."""
    task = BUNDLED[name]

    def convert(row: Row) -> Converted:
        return {field: cell(row, field) for field in task.fields}, label_in(row, "label", task.labels), None

    def split(which: str) -> list[Example]:
        with as_file(files("forgetmenot.tasks") / "quickstart" / f"{name}-{which}.jsonl") as path:
            return examples(read_jsonl(path), which, convert)

    splits = divide(split("train"), split("score"))
    return Task(
        name=name,
        kind="choice",
        metric="accuracy",
        train=splits.train,
        select=splits.select,
        score=splits.score,
        labels=task.labels,
        further_metrics=task.further_metrics,
        origin="bundled",
        notes=splits.notes,
    )


SOURCE = Source(
    titles={name: f"Bundled: {task.title}" for name, task in BUNDLED.items()},
    load=load_bundled,
    suites={"quickstart": tuple(BUNDLED)},
)
