"""The tasks of GLUE (Wang et al. 2019, arXiv 1804.07461), from the hub or from files on disk."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.metrics import metric_named
from forgetmenot.tasks.rows import BadRowError, Converted, cell, examples, label_in, plain
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.splits import divide
from forgetmenot.tasks.tables import Row, Table, read_hub, read_parquet, read_saved, read_tsv
from forgetmenot.tasks.task import Example, Task

HUB = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


@dataclass(frozen=True, slots=True)
class GlueTask:
    """Where a task of GLUE lies and what its columns mean.

    Attributes:
        fields: The hub's column for each field, with the header's name in GLUE's own files.
        label: The header's name for the label in GLUE's own files; `label` on the hub.
        labels: The label names, in the order of their numbers.
        config: The hub's config, and the lower-case name of a folder.
        validation: The hub's split that is scored; `dev` is its name in GLUE's own files.
        header: The columns of files that come without a header.
        uneven: Whether GLUE's own file has broken lines, which every reader of it leaves out.
    """

    title: str
    folder: str
    config: str
    fields: Mapping[str, str]
    labels: tuple[str, ...]
    label: str = "label"
    metric: str = "accuracy"
    further_metrics: tuple[str, ...] = ()
    validation: str = "validation"
    dev: str = "dev"
    header: tuple[str, ...] | None = None
    uneven: bool = False


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_NLI = {"premise": "sentence1", "hypothesis": "sentence2"}
_NLI_LABELS = ("entailment", "neutral", "contradiction")
_TWO_WAY = ("entailment", "not_entailment")

GLUE: dict[str, GlueTask] = {
    "sst2": GlueTask(
        "SST-2: is a sentence of a film review negative or positive?",
        "SST-2", "sst2", {"sentence": "sentence"}, ("negative", "positive"),
    ),
    "mrpc": GlueTask(
        "MRPC: do two sentences of news mean the same?",
        "MRPC", "mrpc", {"sentence1": "#1 String", "sentence2": "#2 String"},
        ("not_equivalent", "equivalent"), label="Quality", further_metrics=("f1",),
    ),
    "cola": GlueTask(
        "CoLA: is a sentence acceptable English?",
        "CoLA", "cola", {"sentence": "sentence"}, ("unacceptable", "acceptable"),
        further_metrics=("matthews",), header=("source", "label", "star", "sentence"),
    ),
    "mnli": GlueTask(
        "MNLI: does a premise entail a hypothesis? Scored on matched genres",
        "MNLI", "mnli", _NLI, _NLI_LABELS,
        label="gold_label", validation="validation_matched", dev="dev_matched",
    ),
    "mnli_mismatched": GlueTask(
        "MNLI, scored on genres that are not in train",
        "MNLI", "mnli", _NLI, _NLI_LABELS,
        label="gold_label", validation="validation_mismatched", dev="dev_mismatched",
    ),
    "qnli": GlueTask(
        "QNLI: does a sentence hold the answer to a question?",
        "QNLI", "qnli", {"question": "question", "sentence": "sentence"}, _TWO_WAY,
    ),
    "rte": GlueTask("RTE: does one sentence entail another?", "RTE", "rte", _PAIR, _TWO_WAY),
    "qqp": GlueTask(
        "QQP: do two questions ask the same?",
        "QQP", "qqp", {"question1": "question1", "question2": "question2"}, ("not_duplicate", "duplicate"),
        label="is_duplicate", further_metrics=("f1",), uneven=True,
    ),
    "wnli": GlueTask(
        "WNLI: does a sentence with its pronoun resolved follow?",
        "WNLI", "wnli", _PAIR, ("not_entailment", "entailment"),
    ),
    "stsb": GlueTask(
        "STS-B: how alike are two sentences, from 0 to 5?",
        "STS-B", "stsb", _PAIR, ("0", "1", "2", "3", "4", "5"),
        label="score", metric="spearman", further_metrics=("pearson",),
    ),
}  # fmt: skip


def load_glue(name: str, data_dir: Path | None) -> Task:
    """Load a task of GLUE, scored on its validation split: the labels of the test split are hidden.

    Args:
        name: A key of GLUE.
        data_dir: A folder that holds glue/, or is it; the hub where None. Per task it holds GLUE's own files
            (SST-2/train.tsv and dev.tsv), or sst2/ as `save_to_disk` or the hub's parquet files leave it.

    Raises:
        UserError: Nothing is found, or a row is broken or has a label that is none of the task's.
    """
    glue = GLUE[name]
    notes: list[str] = []
    uneven: list[int] | None = [] if glue.uneven else None
    if data_dir is None:
        origin = f"{HUB}@{REVISION} ({glue.config})"
        tables = [read_hub(HUB, glue.config, REVISION, split) for split in ("train", glue.validation)]
    else:
        origin, tables = _find(name, glue, data_dir, uneven)
        if tables[1].source.endswith("msr_paraphrase_test.txt"):
            notes.append("MRPC is read from Microsoft's files: score is their test part, not GLUE's dev.")
    train, score = (
        _examples(glue, table, split) for table, split in zip(tables, ("train", "score"), strict=True)
    )
    if uneven:
        notes.append(f"{len(uneven)} broken lines of {name} were left out (the first is line {uneven[0]}).")
    splits = divide(train, score)
    return Task(
        name=name,
        kind="choice",
        metric=glue.metric,
        train=splits.train,
        select=splits.select,
        score=splits.score,
        labels=glue.labels,
        further_metrics=glue.further_metrics,
        origin=origin,
        notes=(*notes, *splits.notes),
    )


def _find(name: str, glue: GlueTask, data_dir: Path, uneven: list[int] | None) -> tuple[str, list[Table]]:
    """Find the task's folder and read its train and scored split in the layout that it has."""
    if not data_dir.is_dir():
        raise UserError(f"The data folder {data_dir} does not exist.")
    folders = [
        root / folder for root in (data_dir / "glue", data_dir) for folder in (glue.folder, glue.config)
    ]
    files = [("train.tsv", f"{glue.dev}.tsv")]
    if name == "mrpc":
        files.append(("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"))
    for folder in folders:
        if (folder / "dataset_dict.json").is_file():
            return str(folder), [read_saved(folder, split) for split in ("train", glue.validation)]
        shards = [sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", glue.validation)]
        if all(shards):
            return str(folder), [read_parquet(paths) for paths in shards]
        for pair in files:
            if all((folder / file).is_file() for file in pair):
                return str(folder), [read_tsv(folder / file, glue.header, uneven) for file in pair]
    raise UserError(
        f"No data of {name} under {data_dir}: looked for {', '.join(map(str, folders))}, each with "
        f"{' or '.join(' and '.join(pair) for pair in files)}, or train-*.parquet and "
        f"{glue.validation}-*.parquet, or what save_to_disk writes."
    )


def _examples(glue: GlueTask, table: Table, split: str) -> list[Example]:
    fields = [(field, _column(table, field, theirs)) for field, theirs in glue.fields.items()]
    label = _column(table, "label", glue.label)
    known = {name: name for name in glue.labels} | {str(i): name for i, name in enumerate(glue.labels)}

    def choice(row: Row) -> Converted:
        name = known.get(plain(cell(row, label))) or label_in(row, label, glue.labels)
        return {field: _text(row, column) for field, column in fields}, name, None

    def graded(row: Row) -> Converted:
        score = _score(row, label)
        return {field: _text(row, column) for field, column in fields}, str(math.floor(score + 0.5)), score

    return examples(table, split, graded if metric_named(glue.metric).reads == "numbers" else choice)


def _column(table: Table, ours: str, theirs: str) -> str:
    for column in (theirs, ours):
        if column in table.columns:
            return column
    raise UserError(f"{table.source} has no column {theirs!r}; it has {', '.join(table.columns)}.")


def _text(row: Row, column: str) -> str:
    value = cell(row, column)
    if not isinstance(value, str):
        raise BadRowError(f"{column!r} is {value!r}, not text.")
    return value.rstrip()  # several sets end their sentences with a blank that no model should learn


def _score(row: Row, column: str) -> float:
    try:
        score = float(cell(row, column))
    except ValueError:
        score = math.nan
    if score == -1:
        raise BadRowError(f"{column} is -1: the scores of this split are hidden; score on a labelled one.")
    if not 0 <= score <= 5:
        raise BadRowError(f"{column!r} is {row[column]!r}, not a number from 0 to 5.")
    return round(score, 3)  # the hub holds its three decimals as a 32-bit float


SOURCE = Source(
    titles={name: task.title for name, task in GLUE.items()},
    load=load_glue,
    suites={"glue4": ("sst2", "mrpc", "cola", "mnli")},
)
