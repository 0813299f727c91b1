"""The standard CL benchmark and its 15-task extension, in the layout of O-LoRA's CL_Benchmark.

Qin and Joty 2022 (arXiv 2110.07298) and Razdaibiedina et al. 2023 (arXiv 2301.12314) chose the tasks and
their orders; Wang et al. 2023 (O-LoRA, arXiv 2310.14152) published the files that are read here.
"""

from dataclasses import dataclass
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.tasks.rows import Converted, cell, examples, label_in
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.splits import divide, hold_out
from forgetmenot.tasks.tables import Row, read_json
from forgetmenot.tasks.task import Example, Task

WHERE = "https://github.com/cmnfriend/O-LoRA (CL_Benchmark)"
SCORED_PART = 5  # one in so many rows is scored where a task has one file alone

_STARS = ("very negative", "negative", "neutral", "positive", "very positive")
_TRUTH = ("True", "False")


@dataclass(frozen=True, slots=True)
class StandardTask:
    """The folder of a task under CL_Benchmark, and its labels in the order of its labels.json."""

    title: str
    folder: str
    labels: tuple[str, ...]


# Four of them are samples of tasks that GLUE names too; they carry the benchmark's prefix.
STANDARD_CL: dict[str, StandardTask] = {
    "amazon": StandardTask("Amazon: how many stars has a product review?", "SC/amazon", _STARS),
    "yelp": StandardTask("Yelp: how many stars has a review?", "SC/yelp", _STARS),
    "imdb": StandardTask("IMDB: is a film review good or bad?", "SC/IMDB", ("Good", "Bad")),
    "agnews": StandardTask(
        "AG News: what is a news item about?",
        "TC/agnews",
        ("World", "Sports", "Business", "Science or Technology"),
    ),
    "dbpedia": StandardTask(
        "DBpedia: what kind of thing is described?",
        "TC/dbpedia",
        (
            "Company",
            "Educational Institution",
            "Artist",
            "Athlete",
            "Office Holder",
            "Mean of Transportation",
            "Building",
            "Natural Place",
            "Village",
            "Animal",
            "Plant",
            "Album",
            "Film",
            "Written Work",
        ),
    ),
    "yahoo": StandardTask(
        "Yahoo Answers: what is a question about?",
        "TC/yahoo",
        (
            "Society & Culture",
            "Science & Mathematics",
            "Health",
            "Education & Reference",
            "Computers & Internet",
            "Sports",
            "Business & Finance",
            "Entertainment & Music",
            "Family & Relationships",
            "Politics & Government",
        ),
    ),
    "cb": StandardTask(
        "CommitmentBank: does a text entail a sentence?",
        "NLI/CB",
        ("entailment", "contradiction", "neutral"),
    ),
    "copa": StandardTask("COPA: which of two sentences is the cause or the effect?", "COPA/COPA", ("A", "B")),
    "multirc": StandardTask("MultiRC: is an answer to a question correct?", "MultiRC/MultiRC", _TRUTH[::-1]),
    "boolq": StandardTask("BoolQ: does a passage answer a question with yes?", "BoolQA/BoolQA", _TRUTH),
    "wic": StandardTask("WiC: does a word have the same sense in two sentences?", "WiC/WiC", _TRUTH),
    "cl-mnli": StandardTask(
        "CL_Benchmark's sample of MNLI", "NLI/MNLI", ("neutral", "entailment", "contradiction")
    ),
    "cl-rte": StandardTask("CL_Benchmark's sample of RTE", "NLI/RTE", ("contradiction", "entailment")),
    "cl-qqp": StandardTask("CL_Benchmark's sample of QQP", "QQP/QQP", _TRUTH[::-1]),
    "cl-sst2": StandardTask("CL_Benchmark's sample of SST-2", "SC/SST-2", ("Good", "Bad")),
}

# Orders 1 to 3 and 4 to 6 of O-LoRA. `standard-cl-local` is our own: it needs no file that is hard to get.
ORDERS: dict[str, tuple[str, ...]] = {
    "standard-cl": ("dbpedia", "amazon", "yahoo", "agnews"),
    "standard-cl-2": ("dbpedia", "amazon", "agnews", "yahoo"),
    "standard-cl-3": ("yahoo", "amazon", "agnews", "dbpedia"),
    "standard-cl-local": ("agnews", "amazon", "yelp", "dbpedia", "imdb"),
    "long-15": (
        *("cl-mnli", "cb", "wic", "copa", "cl-qqp", "boolq", "cl-rte", "imdb"),
        *("yelp", "amazon", "cl-sst2", "dbpedia", "agnews", "multirc", "yahoo"),
    ),
    "long-15-2": (
        *("multirc", "boolq", "wic", "cl-mnli", "cb", "copa", "cl-qqp", "cl-rte"),
        *("imdb", "cl-sst2", "dbpedia", "agnews", "yelp", "amazon", "yahoo"),
    ),
    "long-15-3": (
        *("yelp", "amazon", "cl-mnli", "cb", "copa", "cl-qqp", "cl-rte", "imdb"),
        *("cl-sst2", "dbpedia", "agnews", "yahoo", "multirc", "boolq", "wic"),
    ),
}


def load_standard_cl(name: str, data_dir: Path | None) -> Task:
    """Load a task from its folder's train.json, dev.json and test.json, as far as they are there.

    `test` is scored and `dev` is what choices are made on; where there is no `test`, `dev` is scored. Where
    one file is all there is, a fixed fifth of it, drawn by text, is scored and the rest is learned.

    Args:
        name: A key of STANDARD_CL.
        data_dir: A folder that holds standard-cl/ or CL_Benchmark/, or is it.

    Raises:
        UserError: No file of the task is found, or a row is broken or has a label that is none of the task's.
    """
    task = STANDARD_CL[name]
    folder = _find(name, task, data_dir)

    def convert(row: Row) -> Converted:
        sentence = str(cell(row, "sentence")).rstrip()  # many end in a newline that no model should learn
        return {"sentence": sentence}, label_in(row, "label", task.labels), None

    found: dict[str, list[Example]] = {}
    for file in ("train", "dev", "test"):
        path = folder / f"{file}.json"
        if path.is_file() and path.stat().st_size:  # CL_Benchmark leaves empty files where data is too large
            found[file] = examples(read_json(path), "score" if file == "test" else file, convert)
    notes: tuple[str, ...] = ()
    if len(found) == 1:
        [(file, rows)] = found.items()
        train, score = hold_out(rows, len(rows) // SCORED_PART)
        select = None
        notes = (
            f"{file}.json is the only file: {len(score):,} of its {len(rows):,} rows, drawn by a fixed seed, "
            "are scored and the rest is learned.",
        )
    else:
        train = found.get("train", [])
        score = found.get("test") or found.get("dev", [])
        select = found.get("dev") if "test" in found else None
    splits = divide(train, score, select)
    return Task(
        name=name,
        kind="choice",
        metric="accuracy",
        train=splits.train,
        select=splits.select,
        score=splits.score,
        labels=task.labels,
        origin=str(folder),
        notes=(*notes, *splits.notes),
    )


def _find(name: str, task: StandardTask, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            f"The task {name!r} is read from files: set data_dir to a folder that holds standard-cl/, "
            f"the files of {WHERE}."
        )
    folders = [root / task.folder for root in (data_dir / "standard-cl", data_dir / "CL_Benchmark", data_dir)]
    for folder in folders:
        if any((folder / f"{file}.json").is_file() for file in ("train", "dev", "test")):
            return folder
    raise UserError(
        f"No data of {name} under {data_dir}: looked for {', '.join(map(str, folders))}, each with "
        f"train.json, dev.json or test.json. They come from {WHERE}."
    )


SOURCE = Source({name: task.title for name, task in STANDARD_CL.items()}, load_standard_cl, ORDERS)
