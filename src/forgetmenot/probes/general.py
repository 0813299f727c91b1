"""The `general` probe: lm-evaluation-harness's tasks, after each stage."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from forgetmenot.errors import UserError, nearest
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

FEWSHOT_SEED = 1234  # lm-eval's own default
BOOTSTRAPS = 1000  # only for metrics whose standard error has no formula
WHOLE = ("mmlu", "bbh", "bbh_cot_fewshot")  # groups all of whose tasks are in one folder of lm-eval's
PROPORTIONS = ("acc", "acc_norm", "exact_match")
UNREADABLE = (OSError, KeyError, ValueError, IndexError, RuntimeError, ImportError)


class GeneralOptions(ProbeOptions):
    """Which benchmarks.

    Attributes:
        tasks: Names of lm-eval's tasks, groups or tags, or paths to task files of its kind; empty for
            TRACE's: MMLU (5 shots), GSM8K (8 shots with reasoning), BBH (3 shots with reasoning), BoolQ and
            PIQA (no shots). Its TyDiQA is not among them.
        limit: Take the first so many examples of each task, as lm-eval does.
        num_fewshot: The number of shots, or a map name → number; null is 5 for MMLU where `tasks` is empty,
            and else lm-eval's own default, which for MMLU is none. A task that fixes no shots keeps none.
        chat: Put the questions as chats, by the model's template.
    """

    tasks: tuple[str, ...] = ()
    limit: PositiveInt | None = None
    num_fewshot: NonNegativeInt | dict[str, NonNegativeInt] | None = None
    chat: bool = False


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
        if find_spec("lm_eval") is None:
            raise UserError(
                "evaluation.probes: general needs lm-evaluation-harness; pip install 'forgetmenot[probes]'."
            )
        from forgetmenot.probes.shared.benchmarks import general_folder

        self.folder = general_folder(data_dir)
        self.names: tuple[str, ...] = options.tasks or self._trace()
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
        with _undisturbed(), quiet(), _explaining(name, ValueError):
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

    def _trace(self) -> tuple[str, ...]:
        local = self.folder is not None and (self.folder / "boolq").is_dir()
        boolq = "boolq_without_passage" if local else "boolq"
        return ("mmlu", "gsm8k_cot", "bbh_cot_fewshot", boolq, "piqa")

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
        self._manager = _manager([name for name in self.names if not self._is_own(name)])

    def _is_own(self, name: str) -> bool:
        """Whether it is no registered task of lm-eval's."""
        return name == "boolq_without_passage" or name.endswith((".yaml", ".yml"))

    def _tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """The tasks of each name, with their rows; loaded once for all stages."""
        if not self._loaded:
            from forgetmenot.probes.shared.benchmarks import BOOLQ, rows_from
            from forgetmenot.probes.shared.lm_eval_model import quiet

            for name in self.names:
                with rows_from(self.folder), _undisturbed(), quiet(), _explaining(name, *UNREADABLE):
                    tasks = self._manager.load([dict(BOOLQ) if name == BOOLQ["task"] else name])
                for task in tasks["tasks"].values():
                    self._set_shots(task, self.shots.get(name))
                self._loaded.append((name, tasks))
        return self._loaded

    def _set_shots(self, task: Any, shots: int | None) -> None:
        """As lm-eval's `simple_evaluate`."""
        own = task.get_config("num_fewshot")
        if shots is not None and own != 0:
            task.set_config(key="num_fewshot", value=shots)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)

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


def _manager(names: Sequence[str]) -> Any:
    """What loads lm-eval's tasks; it knows all of them only where it must, which takes many seconds.

    Raises:
        UserError: If lm-eval has no task of a name.
    """
    import lm_eval.tasks

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
            near_by = [one for one in manager.all_tasks if one.split("_")[0] == name.split("_")[0]]
            hint = nearest(name, near_by) if near_by else "See lm-eval's list of tasks."
            raise UserError(f"evaluation.probes.general.tasks: lm-eval has no task {name!r}. {hint}")
    return manager


@contextmanager
def _undisturbed() -> Iterator[None]:
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
def _explaining(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Name the task in what goes wrong with its data, which lm-eval says by errors of these kinds."""
    try:
        yield
    except UserError as error:
        raise UserError(f"evaluation.probes.general, task {name}: {error}") from error
    except kinds as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"evaluation.probes.general: lm-eval cannot take the task {name} "
            f"({type(error).__name__}: {first}). If its data is not on this disk, it needs "
            "the hub, or data_dir with general/ (docs/probes.md)."
        ) from error
