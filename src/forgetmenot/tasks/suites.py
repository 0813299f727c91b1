"""Names become tasks: those of public benchmarks, the bundled ones, suites of them, and one's own files."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks.bundled import BUNDLED, load_bundled
from forgetmenot.tasks.custom import load_custom
from forgetmenot.tasks.glue import GLUE, load_glue
from forgetmenot.tasks.standard_cl import ORDERS, STANDARD_CL, load_standard_cl
from forgetmenot.tasks.task import Task
from forgetmenot.tasks.trace import load_trace, trace_suites, trace_tasks

SUITES: dict[str, tuple[str, ...]] = {
    "glue4": ("sst2", "mrpc", "cola", "mnli"),
    "quickstart": ("qs-sentiment", "qs-paraphrase", "qs-acceptability", "qs-inference"),
    **ORDERS,
    **trace_suites(),
}


def known_tasks() -> dict[str, str]:
    """One line on each task that has a name here."""
    glue = {name: task.title for name, task in GLUE.items()}
    standard_cl = {name: task.title for name, task in STANDARD_CL.items()}
    bundled = {name: f"Bundled: {task.title}" for name, task in BUNDLED.items()}
    return glue | standard_cl | trace_tasks() | bundled


def expand(names: Sequence[str]) -> list[str]:
    """Replace suites by their tasks, in order, without reading any data; paths to task files stay.

    Raises:
        UserError: A name is unknown, or a task is named twice.
    """
    tasks = [task for name in names for task in SUITES.get(name, (name,))]
    for task in tasks:
        if not _is_file(task) and task not in known_tasks():
            raise UserError(
                f"There is no task or suite {task!r}; a task of one's own is a path that ends in .yaml. "
                f"{nearest(task, [*known_tasks(), *SUITES])}"
            )
    _refuse_twice(tasks)
    return tasks


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
    _refuse_twice([task.name for task in tasks])
    return tasks


def fingerprint(task: Task) -> str:
    """The first 16 hex digits of the SHA-256 of a task's name, labels and every example of its splits."""
    about: list[Any] = [task.name, task.kind, task.labels]
    if task.kind in ("answer", "messages"):
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
    if name in GLUE:
        return load_glue(name, data_dir)
    if name in BUNDLED:
        return load_bundled(name)
    if name in STANDARD_CL:
        return load_standard_cl(name, data_dir)
    if name in trace_tasks():
        return load_trace(name, data_dir)
    task = load_custom(Path(name))
    if task.name in known_tasks() or task.name in SUITES:
        raise UserError(f"{name}: the name {task.name!r} is taken by a task or suite of this program.")
    return task


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _refuse_twice(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"The task {name!r} is named twice; suites count by the tasks that they hold.")
