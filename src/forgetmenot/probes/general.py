"""The `general` probe: lm-evaluation-harness's tasks, after each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetmenot.errors import UserError, nearest
from forgetmenot.probes.shared.lm_eval_tasks import (
    FEWSHOT_SEED,
    check_installed,
    explaining,
    find_tasks,
    set_shots,
    trace_tasks,
    undisturbed,
)
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions
from forgetmenot.settings import Names, NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

WHERE = "evaluation.probes.general"
BOOTSTRAPS = 1000  # only for metrics whose standard error has no formula
PROPORTIONS = ("acc", "acc_norm", "exact_match")


class GeneralOptions(ProbeOptions):
    """Which benchmarks."""

    tasks: Names = ()
    """Names of lm-eval's tasks, groups or tags, or paths to task files of its kind; empty for TRACE's: MMLU
    (5 shots), GSM8K (8 shots with reasoning), BBH (3 shots with reasoning), BoolQ and PIQA (no shots). Its
    TyDiQA is not among them."""
    limit: PositiveInt | None = None
    """Take the first so many examples of each task, as lm-eval does."""
    num_fewshot: NonNegativeInt | dict[str, NonNegativeInt] | None = None
    """The number of shots, or a map name → number; null is 5 for MMLU where `tasks` is empty, and else
    lm-eval's own default, which for MMLU is none. A task that fixes no shots keeps none."""
    chat: bool = False
    """Put the questions as chats, by the model's template."""


class General(Probe):
    """General ability: any of lm-evaluation-harness's tasks.

    Prompts, shots, filters and metrics are lm-eval's own; the model is scored through the trie, which gives
    the same results (see `lm_eval_model`). Where the data folder has general/, the rows of MMLU, GSM8K, BBH,
    PIQA and ARC come from there. The value of a part is the task's first metric under its first filter, the
    interval ±1.96 of lm-eval's standard errors, within what a proportion can be; beside it stand the other
    metrics, the shots, the version of lm-eval's task and how many requests were cut to the model's length.
    """

    Options = GeneralOptions
    delta = "general ability"

    def __init__(self, options: GeneralOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        check_installed(WHERE)
        from forgetmenot.probes.shared.benchmarks import general_folder

        self.folder = general_folder(data_dir)
        self.names: tuple[str, ...] = options.tasks or trace_tasks(self.folder)
        self._check_names()
        self.shots = self._shots()
        self._loaded: list[tuple[str, dict[str, Any]]] = []

    @property
    def made_with(self) -> str:
        """lm-eval, whose prompts and metrics these are."""
        return f"lm-eval {version('lm-eval')}"

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """A part for each task that was named, and for each task of a tag."""
        from forgetmenot.probes.shared.lm_eval_model import LearnerLM

        parts: list[Part] = []
        for name, tasks in self._tasks():
            model = LearnerLM(learner)
            found = self._evaluate(model, name, tasks)
            cut = {"truncated": float(model.cut)}
            measured = [_part(one, found, tasks, cut) for one in self._of(name, found, tasks)]
            if not model.finite:  # lm-eval takes the first choice where none is a number
                measured = [replace(one, value=None, interval=None, reason=NOT_FINITE) for one in measured]
            parts += measured
        return parts

    def samples(self, model: Any) -> dict[str, list[dict[str, Any]]]:
        """What a model answers to each question: lm-eval's own record of it, by task.

        Args:
            model: Any of lm-eval's interface, such as its own Hugging Face model.
        """
        return {
            task: questions
            for name, tasks in self._tasks()
            for task, questions in self._evaluate(model, name, tasks, log_samples=True)["samples"].items()
        }

    def _evaluate(
        self, model: Any, name: str, tasks: Mapping[str, Any], *, log_samples: bool = False
    ) -> dict[str, Any]:
        """What lm-eval finds of the tasks of a name."""
        from lm_eval.evaluator import evaluate

        from forgetmenot.probes.shared.lm_eval_model import quiet

        for task in tasks["tasks"].values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)  # each stage draws the same shots
        with undisturbed(), quiet(), explaining(WHERE, name, ValueError):
            found: dict[str, Any] = evaluate(
                lm=model,
                task_dict=tasks,
                limit=self.options.limit,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=log_samples,
                apply_chat_template=self.options.chat,
                fewshot_as_multiturn=self.options.chat,
            )
        return found

    def _shots(self) -> dict[str, int]:
        """The number of shots of each name, where it is not the task's own."""
        asked = self.options.num_fewshot
        if asked is None:
            return {} if self.options.tasks else {"mmlu": 5}
        if isinstance(asked, int):
            return dict.fromkeys(self.names, asked)
        for name in asked:
            if name not in self.names:
                raise UserError(
                    f"evaluation.probes.general.num_fewshot: {name!r} is not one of its tasks. "
                    f"{nearest(name, self.names)}"
                )
        return dict(asked)

    def _check_names(self) -> None:
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"evaluation.probes.general.tasks: {twice!r} is listed twice.")
        self._manager = find_tasks(self.names, f"{WHERE}.tasks")

    def _tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """The tasks of each name, with their rows; loaded once for all stages."""
        if not self._loaded:
            from forgetmenot.probes.shared.benchmarks import load

            for name in self.names:
                tasks = load(self._manager, name, self.folder, WHERE)
                for task in tasks["tasks"].values():
                    set_shots(task, self.shots.get(name))
                self._loaded.append((name, tasks))
        return self._loaded

    def _of(self, name: str, found: Mapping[str, Any], tasks: Mapping[str, Any]) -> list[str]:
        """The results that stand for a name: its own, or those of the tasks of a tag."""
        if name in found["results"]:
            return [name]
        inside = {child for children in (tasks.get("group_map") or {}).values() for child in children}
        return [one for one in found["results"] if one not in inside]


def _part(name: str, found: Mapping[str, Any], tasks: Mapping[str, Any], more: dict[str, float]) -> Part:
    results = found["results"][name]
    metrics = {
        key: float(value)
        for key, value in results.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }
    if not metrics:
        return Part(name, None, "none", 0, reason="lm-eval gives no number for this task.")
    metric = next(iter(metrics))
    kind, _, rule = metric.partition(",")
    error = results.get(f"{kind}_stderr,{rule}")
    value = metrics.pop(metric)
    interval = None
    if isinstance(error, int | float) and np.isfinite(error):
        low, high = (0.0, 1.0) if kind in PROPORTIONS else (-np.inf, np.inf)
        interval = (max(low, value - 1.96 * error), min(high, value + 1.96 * error))
    leaves = _leaves(name, tasks, found)
    n = sum(found["n-samples"][task]["effective"] for task in leaves)
    if leaves:
        more = {**more, "num_fewshot": float(found["n-shot"][leaves[0]])}
    if isinstance(task_version := found["versions"].get(name), int | float):
        more = {**more, "version": float(task_version)}
    return Part(name, value, metric, n, interval, more={**metrics, **more})


def _leaves(name: str, tasks: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, or the task itself."""
    children = (tasks.get("group_map") or {}).get(name)
    if children is None:
        return [name] if name in found["n-samples"] else []
    return [leaf for child in children for leaf in _leaves(child, tasks, found)]
