"""Tasks by name: those of public benchmarks, the bundled ones, suites, and a user's own files."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks import bundled, glue, standard_cl, super_ni, trace
from forgetmenot.tasks.custom import check_task_file, load_custom
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.task import Task

SOURCES: dict[str, Source] = {
    "glue": glue.SOURCE,
    "standard-cl": standard_cl.SOURCE,
    "trace": trace.SOURCE,
    "super-ni": super_ni.SOURCE,
    "bundled": bundled.SOURCE,
}


def known_tasks() -> dict[str, str]:
    """One line on each task that has a name here."""
    return {name: title for source in SOURCES.values() for name, title in source.titles.items()}


def known_suites() -> dict[str, tuple[str, ...]]:
    """The names of each suite's tasks, in order."""
    return {name: tasks for source in SOURCES.values() for name, tasks in source.suites.items()}


def expand(names: Sequence[str]) -> list[str]:
    """Replace suites by their tasks, in order, without reading any data; paths to task files stay.

    Raises:
        UserError: A name is unknown, or a task is named twice.
    """
    suites, known = known_suites(), known_tasks()
    tasks = [task for name in names for task in suites.get(name, (name,))]
    for task in tasks:
        if not _is_file(task) and task not in known:
            if task and Path(task).exists():
                raise UserError(
                    f"{task} is data, not a task: `fmn init {task}` writes a task file from it; name that."
                )
            raise UserError(
                f"There is no task or suite {task!r}; your own task is a path that ends in .yaml. "
                f"{nearest(task, [*known, *suites], '`fmn list tasks` (or suites)')}"
            )
    refuse_twice(tasks)
    return tasks


def check_tasks(names: Sequence[str]) -> None:
    """Check names of tasks and suites, and the keys of task files, without reading any rows.

    Raises:
        UserError: A name is unknown or stands twice, or a task file is missing or wrong.
    """
    for name in expand(names):
        if _is_file(name):
            check_task_file(Path(name))


def load_tasks(names: Sequence[str], data_dir: Path | None) -> list[Task]:
    """Load tasks in order.

    Args:
        names: Names of tasks and suites, and paths to task files (YAML).
        data_dir: A folder that holds glue/, standard-cl/, trace/, or is one of them; None reads GLUE from
            the hub.

    Raises:
        UserError: A name is unknown or stands twice, data is missing, or a row is wrong.
    """
    tasks = [_load(name, data_dir) for name in expand(names)]
    refuse_twice([task.name for task in tasks])
    return tasks


def fingerprint(task: Task) -> str:
    """The first 16 hex digits of the SHA-256 of a task's name, labels and every example of its splits."""
    about: list[Any] = [task.name, task.kind, task.labels]
    if task.kind in ("answer", "messages", "benchmark"):
        about.append(asdict(task.generation))
    digest = hashlib.sha256(json.dumps(about).encode())
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    for split in (task.train, task.select, task.score):
        digest.update(b"\n\n")
        for example in split:
            row = (example.id, example.fields, example.label, example.target)
            digest.update(encode(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def _load(name: str, data_dir: Path | None) -> Task:
    for source in SOURCES.values():
        if name in source.titles:
            return source.load(name, data_dir)
    task = load_custom(Path(name))
    if task.name in known_tasks() or task.name in known_suites():
        raise UserError(f"{name}: the name {task.name!r} is taken by a task or suite of this program.")
    return task


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def refuse_twice(names: Sequence[str]) -> None:
    """Refuse a name that stands twice among those of tasks."""
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"The task {name!r} is named twice; a suite counts as the tasks that it holds.")
