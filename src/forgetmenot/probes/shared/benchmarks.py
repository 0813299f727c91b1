"""The benchmarks of general ability as lm-eval knows them, with their rows from local files."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask

from forgetmenot.errors import UserError
from forgetmenot.hub import NotThereError, answers
from forgetmenot.probes.shared.lm_eval_model import quiet
from forgetmenot.probes.shared.lm_eval_tasks import UNREADABLE, WITHOUT_PASSAGE, explaining, undisturbed
from forgetmenot.tasks.tables import from_cache_alone

Rows = list[dict[str, Any]]

BOOLQ: dict[str, Any] = {
    "task": WITHOUT_PASSAGE,
    "dataset_path": WITHOUT_PASSAGE,
    "output_type": "multiple_choice",
    "validation_split": "validation",
    "doc_to_text": "Question: {{question}}?\nAnswer:",
    "doc_to_choice": ["no", "yes"],
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "num_fewshot": 0,
    "metadata": {"version": 1.0},
}
"""BoolQ for files that lack the passages: lm-eval's prompt without them. A harder task, and another name."""


def general_folder(data_dir: Path | None) -> Path | None:
    """The folder of benchmarks in a data folder: its general/, or itself; None where there is neither."""
    if data_dir is None:
        return None
    for folder in (data_dir / "general", data_dir):
        if any((folder / name).is_dir() for name in ("mmlu", "bbh", "gsm8k", "piqa", "boolq", "ARC-Easy")):
            return folder
    return None


def load(manager: Any, name: str, folder: Path | None, where: str) -> Any:
    """The tasks that a name stands for: lm-eval's `TaskDict`.

    Args:
        manager: What `find_tasks` gave.
        name: Of a task, a group or a tag, or the path of a task file of lm-eval's kind.
        folder: Of the benchmarks whose rows are on this disk; None for the hub.
        where: The key that names it.

    Raises:
        UserError: If its rows are not there, or lm-eval cannot take it.
    """
    with rows_from(folder), undisturbed(), quiet(), explaining(where, name, *UNREADABLE):
        return manager.load([dict(BOOLQ) if name == WITHOUT_PASSAGE else name])


@contextmanager
def rows_from(folder: Path | None) -> Iterator[None]:
    """Let lm-eval's tasks take their rows from local files where these are there, and else from the hub."""
    download = ConfigurableTask.download

    def local(task: Any, *args: Any, **named: Any) -> None:
        splits = read_benchmark(folder, task.DATASET_PATH, task.DATASET_NAME) if folder is not None else None
        if splits is None:
            _from_hub(task.DATASET_PATH, lambda: download(task, *args, **named))
        else:
            task.dataset = _as_dataset(splits)

    ConfigurableTask.download = local
    try:
        yield
    finally:
        ConfigurableTask.download = download


def _from_hub(name: str | None, download: Callable[[], None]) -> None:
    """Let lm-eval take rows from the hub, which is asked for them once; else from the cache.

    Raises:
        UserError: They are in neither, and the hub does not answer.
    """
    asks, missing = True, None
    if name is not None and "/" in name and not Path(name).is_dir():  # others are formats, as json
        try:
            asks = answers(name, "README.md", None, "dataset")
        except NotThereError as why:
            asks, missing = False, str(why)
    try:
        with nullcontext() if asks else from_cache_alone():
            download()
    except UNREADABLE as error:
        if missing is None:
            raise
        raise UserError(
            f"its rows, {name}, cannot be had from the hub: {missing}. Without a network, they are read from "
            "data_dir with general/ (docs/probes.md)."
        ) from error


def read_benchmark(folder: Path, path: str | None, name: str | None) -> dict[str, Rows] | None:
    """The splits of a hub data set, with the hub's fields, from local files; None where there are none.

    Args:
        folder: Of the benchmarks.
        path: The data set's id on the hub.
        name: The part of it.

    Raises:
        UserError: If a file is not what it should be.
    """
    readers: dict[str | None, Callable[[Path, str], dict[str, Rows]]] = {
        "cais/mmlu": _mmlu,
        "openai/gsm8k": _gsm8k,
        "SaylorTwift/bbh": _bbh,
        "baber/piqa": _piqa,
        "allenai/ai2_arc": _arc,
        BOOLQ["dataset_path"]: _boolq,
    }
    try:
        return readers[path](folder, name or "") if path in readers else None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{folder}: the file of {path} is not UTF-8 ({error}).") from error


def _as_dataset(splits: Mapping[str, Rows]) -> DatasetDict:
    """A split without rows has the others' columns: lm-eval looks for what no local file holds."""
    filled = next(rows for rows in splits.values() if rows)
    return DatasetDict(
        {
            split: Dataset.from_list(rows) if rows else Dataset.from_list(filled[:1]).select([])
            for split, rows in splits.items()
        }
    )


def _mmlu(folder: Path, subject: str) -> dict[str, Rows]:
    """Hendrycks' CSV files: a question, four choices, and the answer as a letter or from 0 to 3."""
    return {
        split: _mmlu_rows(folder / "mmlu" / split / f"{subject}_{split}.csv") for split in ("dev", "test")
    }


def _mmlu_rows(path: Path) -> Rows:
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, cells in enumerate(csv.reader(stream), start=1):
            if number == 1 and cells[:1] == ["question"]:
                continue
            answer = {**{letter: k for k, letter in enumerate("ABCD")}, **{str(k): k for k in range(4)}}
            if len(cells) != 6 or cells[5].strip() not in answer:
                raise UserError(
                    f"{path}, row {number}: it is not a question with four choices and an answer of A to D."
                )
            question, *choices, right = cells
            rows.append({"question": question, "choices": choices, "answer": answer[right.strip()]})
    return rows


def _gsm8k(folder: Path, _: str) -> dict[str, Rows]:
    path = folder / "gsm8k" / "test.jsonl"
    path = path if path.is_file() else folder / "gsm8k" / "gsm8k_test.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return {"train": [], "test": [_only(row, ("question", "answer"), path) for row in rows]}


def _bbh(folder: Path, task: str) -> dict[str, Rows]:
    path = folder / "bbh" / "bbh" / f"{task}.json"
    rows = _json(path)
    examples = rows["examples"] if isinstance(rows, dict) else rows
    return {"test": [_only(row, ("input", "target"), path) for row in examples]}


def _piqa(folder: Path, _: str) -> dict[str, Rows]:
    """LLM-Adapters' instructions, taken apart again; its "test" is the validation split of 1,838 rows."""
    path = folder / "piqa" / "test.json"
    pattern = re.compile(
        r".*?solution to the question: (.*?)\n\nSolution1: (.*?)\n\nSolution2: (.*?)\n\nAnswer format:.*",
        re.DOTALL,
    )
    rows = []
    for (goal, one, other), answer in _instructions(path, pattern):
        label = _index(answer, "solution", 2, path)
        rows.append({"goal": goal, "sol1": one.strip(), "sol2": other.strip(), "label": label})
    return {"train": [], "validation": rows}


def _arc(folder: Path, name: str) -> dict[str, Rows]:
    """LLM-Adapters' instructions, taken apart again; the choices are numbered from 1."""
    path = folder / name / "test.json"
    pattern = re.compile(r".*?answer to the question: (.*?)\n\n(Answer1: .*?)\n\nAnswer format:.*", re.DOTALL)
    rows = []
    for (question, listed), answer in _instructions(path, pattern):
        texts = [text.strip() for text in re.split(r"Answer\d: ", listed)[1:]]
        labels = [str(k) for k in range(1, len(texts) + 1)]
        right = labels[_index(answer, "answer", len(labels), path)]
        rows.append({"question": question, "choices": {"text": texts, "label": labels}, "answerKey": right})
    return {"train": [], "validation": [], "test": rows}


def _boolq(folder: Path, _: str) -> dict[str, Rows]:
    path = folder / "boolq" / "test.json"
    pattern = re.compile(r".*?true or false, question: (.*?)\n\nAnswer format:.*", re.DOTALL)
    return {
        "validation": [
            {"question": question.rstrip("? "), "label": int(answer == "true")}
            for (question,), answer in _instructions(path, pattern)
        ]
    }


def _instructions(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Sequence[str], str]]:
    """The parts of each row's instruction, and its answer."""
    for number, row in enumerate(_json(path), start=1):
        row = _only(row, ("instruction", "answer"), path)
        found = pattern.fullmatch(row["instruction"])
        if found is None:
            raise UserError(f"{path}, row {number}: its instruction is not in LLM-Adapters' form.")
        yield found.groups(), row["answer"]


def _index(answer: str, word: str, count: int, path: Path) -> int:
    known = [f"{word}{k}" for k in range(1, count + 1)]
    if answer not in known:
        raise UserError(f"{path}: the answer {answer!r} is none of {', '.join(known)}.")
    return known.index(answer)


def _only(row: Any, names: Sequence[str], path: Path) -> dict[str, Any]:
    missing = [name for name in names if not isinstance(row, dict) or name not in row]
    if missing:
        raise UserError(f"{path}: a row lacks the field {missing[0]!r}.")
    return {name: row[name] for name in names}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
