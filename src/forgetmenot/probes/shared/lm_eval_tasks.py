"""lm-evaluation-harness's tasks by name, and what its own command line takes care of around them."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.errors import UserError, did_you_mean

FEWSHOT_SEED = 1234  # lm-eval's own default
WITHOUT_PASSAGE = "boolq_without_passage"  # described by `benchmarks`, and not by lm-eval
WHOLE = ("mmlu", "bbh", "bbh_cot_fewshot")  # groups all of whose tasks are in one folder of lm-eval's
UNREADABLE = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    ImportError,
)
"""What lm-eval and the libraries below it say by about a task file, or rows, that they cannot take."""


NAMED = re.compile(r"^[\"']?(?:task|group)[\"']?: *[\"']?([^\s\"'#]+)", re.M)
"""The name of a task or group in a file of lm-eval's."""


def trace_tasks(folder: Path | None) -> tuple[str, ...]:
    """TRACE's benchmarks of general ability (arXiv 2310.06762) but TyDiQA, by lm-eval's names.

    Args:
        folder: Of local benchmarks, whose BoolQ lacks the passages; None for the hub.
    """
    boolq = WITHOUT_PASSAGE if folder is not None and (folder / "boolq").is_dir() else "boolq"
    return ("mmlu", "gsm8k_cot", "bbh_cot_fewshot", boolq, "piqa")


def is_near(name: str) -> bool:
    """Whether the folder that would hold a task or group has it; lm-eval is not imported for that."""
    return name == WITHOUT_PASSAGE or any(
        name in NAMED.findall(text) for text in _task_files(name.split("_")[0])
    )


def unmentioned(names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Which of some names no file of lm-eval's mentions, and those of its tasks and groups; takes seconds."""
    left, named = set(names), set[str]()
    for text in _task_files():
        named |= set(NAMED.findall(text))
        left -= {name for name in left if name in text}
    return left, named


def _task_files(folder: str = "") -> Iterator[str]:
    """The texts of lm-eval's task files; nothing where it is not installed."""
    spec = find_spec("lm_eval")
    for home in (spec and spec.submodule_search_locations) or ():
        for file in (Path(home) / "tasks" / folder).rglob("*y*ml"):
            yield file.read_text(encoding="utf-8", errors="replace")


def check_installed(where: str) -> None:
    """Refuse to go on without lm-eval.

    Args:
        where: The key that needs it, for the sentence.
    """
    if find_spec("lm_eval") is None:
        raise UserError(f"{where}: this needs lm-evaluation-harness; pip install 'forgetmenot[probes]'.")


def find_tasks(names: Sequence[str], where: str, others: Iterable[str] = ()) -> Any:
    """What loads lm-eval's tasks; it knows all of them only where it must, which takes many seconds.

    Args:
        names: Of tasks, groups and tags; paths of task files stand for themselves.
        where: The key that names them.
        others: What else may stand there, for the sentence.

    Raises:
        UserError: If lm-eval has no task of a name.
    """
    import lm_eval.tasks

    names = [name for name in names if not is_file(name) and name != WITHOUT_PASSAGE]
    home = Path(lm_eval.tasks.__file__).parent
    near = {home / name.split("_")[0] for name in names}
    manager = lm_eval.tasks.TaskManager(
        include_defaults=False, include_path=sorted(str(folder) for folder in near if folder.is_dir())
    )
    known = {*manager.all_subtasks, *(name for name in WHOLE if name in manager.all_groups)}
    if set(names) <= known:
        return manager
    manager = lm_eval.tasks.TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            hint = did_you_mean(name, [*others, *manager.all_tasks], 3)
            raise UserError(f"{where}: lm-eval has no task {name!r}. {hint}See lm-eval's list of tasks.")
    return manager


def is_file(name: str) -> bool:
    """Whether a name is the path of a task file."""
    return name.endswith((".yaml", ".yml"))


def set_shots(task: Any, shots: int | None) -> None:
    """Set how many solved examples a task shows, as lm-eval's `simple_evaluate`; None for its own number."""
    own = task.get_config("num_fewshot")
    if shots is not None and own != 0:
        task.set_config(key="num_fewshot", value=shots)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is drawn here does not shift what training draws, and does not depend on it."""
    import torch

    states = random.getstate(), np.random.get_state()
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.random.fork_rng():
            random.seed(0)
            np.random.seed(FEWSHOT_SEED)
            torch.manual_seed(FEWSHOT_SEED)
            yield
    finally:
        log.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def explaining(where: str, name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Name the task in what goes wrong with its data, which lm-eval says by errors of these kinds."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}, task {name}: {error}") from error
    except kinds as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{where}: lm-eval cannot take the task {name} ({type(error).__name__}: {first}). If its data is "
            "not on this disk, it needs the hub, or data_dir with general/ (docs/probes.md)."
        ) from error
