"""Benchmarks by name: lm-evaluation-harness's tasks, wherever tasks are named that are only scored.

A name of ours wins. `divided` tells the two apart, `check_benchmarks` refuses what is wrong without reading
rows, and `load_benchmarks` gives tasks with their questions, ready for `readings.scored_task`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError, did_you_mean
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.questions import BY_PROBE, as_benchmark, ask
from forgetmenot.probes.shared.lm_eval_tasks import (
    UNREADABLE,
    explaining,
    find_tasks,
    is_file,
    is_near,
    undisturbed,
    unmentioned,
)
from forgetmenot.tasks import known_suites, known_tasks, sample

WATCHED = "evaluation.also_score"


def divided(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of our own tasks, suites and task files, and those of benchmarks."""
    ours = [name for name in names if _is_ours(name)]
    return ours, [name for name in names if name not in ours]


def check_benchmarks(names: Sequence[str]) -> None:
    """Check names of benchmarks without reading any rows.

    Raises:
        UserError: A name is neither ours nor lm-eval's, or lm-eval is not installed.
    """
    if names:
        _find(names, WATCHED)


def refuse_training(names: Sequence[str]) -> None:
    """Refuse names of benchmarks among the tasks to be trained; it imports nothing of lm-eval.

    Raises:
        UserError: One is there.
    """
    for name in divided(names)[1]:
        if is_file(name) or is_near(name):
            raise UserError(
                f"tasks: {name!r} is a task of lm-evaluation-harness, which is only scored, never trained; "
                "name it in evaluation.also_score (--watch)."
            )


def load_benchmarks(
    names: Sequence[str], data_dir: Path | None, limit: int | None, where: str = WATCHED
) -> list[Benchmark]:
    """Load benchmarks in order, with what is asked of the examples within the limit.

    A group of lm-eval's with a score of its own (MMLU) is one benchmark over all its questions; other groups
    and tags stand for their tasks.

    Args:
        names: Of lm-eval's tasks, groups and tags, and paths to task files of its kind.
        data_dir: A folder that may hold general/, whose rows are then read; else they come from the hub.
        limit: The most examples of each; they are drawn by its name alone.
        where: What names them, for error messages.

    Raises:
        UserError: Rows are not there, or it is no share of right answers that lm-eval gives.
    """
    if not names:
        return []
    manager = _find(names, where)
    from forgetmenot.probes.shared.benchmarks import general_folder, load

    found = []
    for name in names:
        loaded = load(manager, name, general_folder(data_dir), where)
        columns = _columns(loaded, where)
        found += [_benchmark(column, leaves, limit, where) for column, leaves in columns.items()]
    return found


def _is_ours(name: str) -> bool:
    return not _is_lm_eval_file(name) if is_file(name) else name in known_tasks() or name in known_suites()


def _is_lm_eval_file(name: str) -> bool:
    """Whether a task file is of lm-eval's kind: it has `task` or `group` where ours has `name`."""
    path = Path(name)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return bool(re.search(r"^(task|group):", text, re.M)) and not re.search(r"^name:", text, re.M)


def _find(names: Sequence[str], where: str) -> Any:
    """What loads these benchmarks."""
    ours = [*known_tasks(), *known_suites()]
    if find_spec("lm_eval") is None:
        raise UserError(
            f"{where}: There is no task or suite {names[0]!r}. {did_you_mean(names[0], ours, 3)}If it is one "
            "of lm-evaluation-harness's, pip install 'forgetmenot[probes]'."
        )
    far = [name for name in names if not is_file(name) and not is_near(name)]
    unknown, named = unmentioned(far) if far else (set(), set())
    for name in unknown:
        raise UserError(
            f"{where}: There is no task or suite {name!r}, and lm-evaluation-harness has none. "
            f"{did_you_mean(name, [*ours, *named], 3)}`fmn list tasks` shows ours."
        )
    return find_tasks(names, where, ours)


def _columns(loaded: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    """The tasks of each column that a name stands for."""
    groups, children = loaded.get("groups") or {}, loaded.get("group_map") or {}

    def of(name: str) -> dict[str, list[Any]]:
        if name not in groups:
            return {name: [loaded["tasks"][name]]}
        if groups[name].has_aggregation:
            return {name: groups[name].get_all_tasks()}
        return {column: leaves for child in children[name] for column, leaves in of(child).items()}

    inside = {child for names in children.values() for child in names}
    outermost = [name for name in (*groups, *loaded["tasks"]) if name not in inside]
    found = {column: leaves for name in outermost for column, leaves in of(name).items()}
    for name in found.keys() & groups.keys():
        _check_mean(name, groups[name], where)
    return found


def _check_mean(name: str, group: Any, where: str) -> None:
    """Refuse a group whose score is not the share over all its questions."""
    first = group.aggregate_metric_list[0]
    if first.aggregation != "mean" or not first.weight_by_size:
        names = [leaf.task_name for leaf in group.get_all_tasks()]
        raise UserError(
            f"{where}, task {name}: lm-eval's score of this group is another mean than that over all its "
            f"questions, as a column is; name its tasks ({', '.join(names[:3])}, …), or {BY_PROBE}."
        )


def _benchmark(name: str, leaves: Sequence[Any], limit: int | None, where: str) -> Benchmark:
    """A column: what is asked of one task, or of all tasks of a group."""
    from forgetmenot.probes.shared.lm_eval_model import quiet

    with undisturbed(), quiet(), explaining(where, name, *UNREADABLE):
        places = [(leaf, place) for leaf in leaves for place in range(len(leaf.eval_docs))]
        drawn = sample(name, places, limit)
        asked = [
            question
            for leaf in leaves
            if (own := [place for one, place in drawn if one is leaf])
            for question in ask(leaf, own)
        ]
        return as_benchmark(name, asked)
