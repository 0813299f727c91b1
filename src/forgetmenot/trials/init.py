"""`fmn init`: look at a file of rows, and write the task file that goes with it."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.errors import UserError
from forgetmenot.paths import LONGEST
from forgetmenot.prompting import choose_prompt
from forgetmenot.prompting.texts import as_text
from forgetmenot.record.files import write_text
from forgetmenot.report.screen import Screen
from forgetmenot.tasks import known_suites, known_tasks, load_tasks
from forgetmenot.tasks.draft import draft
from forgetmenot.tasks.files import PACKED, READERS, read_table
from forgetmenot.tasks.guess import guess
from forgetmenot.tasks.tables import Row
from forgetmenot.tasks.task import Example, Task

SPLIT_NAMES = {
    "train": ("train", "training"),
    "score": ("dev", "validation", "valid", "val", "eval", "score", "test"),
}
"""What people call the file of each split; of several the first."""

FEWEST = 10
"""Rows, of which a tenth is one."""


@dataclass(frozen=True)
class NewTask:
    """A task file that was written.

    Attributes:
        path: Where; `fmn.run(tasks=[str(path)])` trains on it.
        task: The task as it is read from there.
    """

    path: Path
    task: Task

    def __fspath__(self) -> str:
        return str(self.path)

    def print(self, console: Console | None = None) -> None:
        """Show what the task is, what the model reads of the first row, and what to do next."""
        console, task = console or Screen(), self.task
        sizes = ", ".join(f"{len(getattr(task, split)):,} {split}" for split in ("train", "select", "score"))
        what = "answers" if task.kind == "messages" else "rows"  # a chat has one for each assistant turn
        console.print(f"{self.path}: a task of kind {task.kind}, scored by {task.metric}; {what}: {sizes}.")
        for note in task.notes:
            console.print(f"  {note}", highlight=False)
        asked, answer = _first(task)
        console.print("\nThe model reads of the first row:", highlight=False)
        console.print(_indented(asked), highlight=False, soft_wrap=True)
        if answer:
            console.print("and should answer:", highlight=False)
            console.print(_indented(answer), highlight=False, soft_wrap=True)
        console.print(
            f"\nIf that is wrong, edit {self.path} (docs/data.md). Then:\n"
            f"  fmn run --model MODEL --tasks {self.path} --preview   # what it takes\n"
            f"  fmn run --model MODEL --tasks {self.path} --watch OTHER,TASKS   # and what is lost of these",
            highlight=False,
            soft_wrap=True,
        )


def init(
    data: Any,
    output: str | Path | None = None,
    *,
    answer: str | None = None,
    fresh: bool = False,
) -> NewTask:
    """Write the task file of some rows, and read it.

    Args:
        data: A file (.jsonl, .json, .csv, .tsv, .parquet, .txt, .md; .gz behind all but parquet), a folder of
            texts or with a train file in it; or rows: a list of dicts, a DataFrame, a `datasets.Dataset`.
        output: The task file; by default beside the data, with its name. Rows that are not in a file are
            written beside it, and it must be named.
        answer: The column that holds the answer, if it cannot be told.
        fresh: Write over a task file that is there, and over the rows that were written beside it.

    Raises:
        UserError: The rows cannot be read, the answer's column cannot be told, or a file is there that would
            be written over.
    """
    path = _task_file(data, output)
    if path.exists() and not fresh:
        raise UserError(f"{path} is there already; name another file for the task, or remove it.")
    if isinstance(data, str | Path):
        files = _files(Path(data))
        rows = [row for _, row in read_table(files["train"]).rows]
    else:
        files, rows = {"train": _place_for_rows(path, fresh)}, _rows_of(data)
    if len(rows) < (1 if "score" in files else FEWEST):
        raise UserError(
            f"{files['train']} has {len(rows)} rows; {FEWEST} are the fewest, so that one is scored. "
            "Add rows, or write the task file by hand with `data.score` (docs/data.md)."
        )
    folder = path.absolute().parent
    places = {
        split: Path(os.path.relpath(file.absolute(), folder)).as_posix() for split, file in files.items()
    }
    content = draft(_name(path), places, len(rows), guess(rows, answer))
    if not isinstance(data, str | Path):
        write_text(files["train"], "".join(f"{line}\n" for line in _lines(rows)))
    write_text(path, content)
    [task] = load_tasks([str(path)], None)
    return NewTask(path, task)


def _task_file(data: Any, output: str | Path | None) -> Path:
    if output is not None:
        path = Path(output)
        if path.suffix not in (".yaml", ".yml"):
            raise UserError(f"{path}: a task file ends in .yaml.")
        return path
    if not isinstance(data, str | Path):
        raise UserError("init: rows from memory are written to disk: name the task file, as 'tickets.yaml'.")
    place = Path(data)
    stem = place.name if place.is_dir() else Path(place.name.removesuffix(PACKED)).stem
    return (
        place.absolute().parent / f"{stem}.yaml"
        if place.name in ("", ".", "..")
        else place.parent / f"{stem}.yaml"
    )


def _files(place: Path) -> dict[str, Path]:
    """The file or folder to train on, and the one to score, where people would have put it."""
    if not place.exists():
        raise UserError(f"{place} does not exist.")
    if place.is_file():
        ending = place.name[place.name.find(".") :]
        if place.name.removesuffix(ending).lower() not in SPLIT_NAMES["train"]:
            return {"train": place}
        return {"train": place} | _beside(place.parent, "score", [ending])
    found = _beside(place, "train", list(READERS))
    if found:
        return found | _beside(place, "score", [found["train"].suffix])
    return {"train": place}


def _beside(folder: Path, split: str, endings: Iterable[str]) -> dict[str, Path]:
    for ending in endings:
        for name in SPLIT_NAMES[split]:
            if (folder / f"{name}{ending}").is_file():
                return {split: folder / f"{name}{ending}"}
    return {}


def _place_for_rows(path: Path, fresh: bool) -> Path:
    """The file beside a task file that takes rows from memory."""
    place = path.with_suffix(".jsonl")
    if place.exists() and not fresh:
        raise UserError(
            f"{place} is there already, and the rows would be written over it; name another task file."
        )
    return place


def _rows_of(data: Any) -> list[Row]:
    frame = hasattr(data, "to_dict") and hasattr(data, "iloc")
    rows = data.to_dict(orient="records") if frame else list(data)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise UserError("init: rows are dicts, one at least: a list of them, a DataFrame, or a Dataset.")
    return [_plain(row) for row in rows]


def _lines(rows: Iterable[Row]) -> list[str]:
    """Rows as lines of JSON."""
    try:
        return [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    except (TypeError, ValueError) as problem:
        raise UserError(f"init: the rows hold what JSON cannot ({problem}); convert it to text.") from None


def _plain(row: Row) -> Row:
    """NumPy's scalars as Python's, and NaN, by which pandas says that a cell is empty, as null."""
    found = {}
    for name, value in row.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        found[str(name)] = None if isinstance(value, float) and value != value else value
    return found


def _name(path: Path) -> str:
    """A task's name from its file's, which no task of ours has."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[: LONGEST - 3] or "task"
    return f"my-{name}" if name in known_tasks() or name in known_suites() else name


def _first(task: Task) -> tuple[str, str]:
    """What the model reads of the first example, and its answer."""
    example: Example = next(iter([*task.train, *task.score]))
    if task.kind == "messages":
        *before, last = example.fields["messages"]
        return "\n".join(f"[{turn['role']}] {turn['content']}" for turn in before), str(last["content"])
    prompt = choose_prompt(task, "default")
    text = as_text(task, prompt, example, example.fields)
    if task.kind == "text":
        return text.answers[0], ""
    gold = task.labels.index(str(example.label)) if task.labels else 0
    return text.prompt, text.answers[gold].strip()


def _indented(text: str) -> str:
    shown = text if len(text) <= 1200 else f"{text[:1200]}…"
    return "\n".join(f"  │ {line}" for line in shown.split("\n"))
