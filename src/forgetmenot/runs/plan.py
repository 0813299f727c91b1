"""The plan of a run, before any model is loaded: tasks, prompts, method, stages.

What is wrong with a config is said at once: torch is imported only where a setting cannot be checked without.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.config import RunConfig
from forgetmenot.engine import shards
from forgetmenot.errors import UserError, nearest
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.readings import Reading, further_readings, own_reading, scored_split
from forgetmenot.evaluation.watched import check_benchmarks, divided, load_benchmarks, refuse_training
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.metrics import MatrixRow, metric_named
from forgetmenot.paths import at_home
from forgetmenot.probes import check_probe
from forgetmenot.prompting import EncodedExamples, Prompt, encode_cached, why_no_cache
from forgetmenot.runs.realign import check_realign
from forgetmenot.tasks import Example, Task, check_tasks, expand, load_tasks, refuse_twice, sample


@dataclass(frozen=True)
class Plan:
    """A run, ready to start.

    Attributes:
        trained: The tasks with a train split, in order.
        scored: The tasks whose scored split has examples, those of `also_score` last, and of these lm-eval's:
            the columns of R.
        prompts: Each task's prompt, in training and in the run's own reading.
        readings: How tasks are scored after each stage, the run's own reading first.
        stages: The training episodes, without the base.
    """

    config: RunConfig
    trained: tuple[Task, ...]
    scored: tuple[Task, ...]
    prompts: dict[str, Prompt]
    readings: tuple[Reading, ...]
    method: Method
    stages: tuple[Stage, ...]

    @property
    def rows(self) -> list[MatrixRow]:
        """The stages as the score matrix knows them, the base first."""
        trained = [MatrixRow(s.name, s.tasks, self.method.follows(s)) for s in self.stages]
        return [MatrixRow("00-base"), *trained]

    @property
    def notes(self) -> list[str]:
        """Messages to the user about the data."""
        notes = [] if (reason := why_no_cache()) is None else [reason]
        for task in {task.name: task for task in (*self.trained, *self.scored)}.values():
            notes += [f"{task.name}: {note}" for note in task.notes]
            if task not in self.scored:
                split = self.config.evaluation.split
                notes.append(f"{task.name}: it has no {split} split, so it is trained on and has no column.")
            watched = task.name in self.config.evaluation.also_score or task.kind == "benchmark"
            if not task.train and not watched:
                notes.append(f"{task.name}: it has no train split, so it is only scored.")
        notes += [note for reading in self.readings for note in reading.notes]
        notes += [
            f"{task.name}: the reading {reading.name} trains on {again:,} examples and the task's stage on "
            f"{learned:,}: what it brings back may be learned anew."
            for reading in self.readings
            for task in self.trained
            if (again := min(reading.realign, len(task.train)))
            > (learned := len(sample(task.name, task.train, for_task(self.config.training.limit, task.name))))
        ]
        return notes


Load = Callable[[Sequence[str], Path | None], list[Task]]
Watch = Callable[[Sequence[str], Path | None, int | None], list[Benchmark]]


def make_plan(config: RunConfig, load: Load = load_tasks, watch: Watch = load_benchmarks) -> Plan:
    """Load the tasks, choose the prompts and ask the method for its stages.

    Args:
        config: The run's.
        load: What loads our tasks by name.
        watch: What loads benchmarks by name, with so many of their examples.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    method = check_names(config)
    ours, benchmarks = divided(config.evaluation.also_score)
    both = load([*config.tasks, *ours], data_folder(config))
    ordered = both[: len(expand(config.tasks))]
    trained = tuple(task for task in ordered if task.train)
    if not trained:
        raise UserError(
            f"tasks: none of {', '.join(task.name for task in ordered)} has a train split. Name rows to "
            "learn from in a task file (`data.train`); to score a model alone, use `fmn check`."
        )
    _check_preferences(config, method, trained)
    both = [*both, *watch(benchmarks, data_folder(config), config.evaluation.limit)]
    refuse_twice([task.name for task in both])
    scored = tuple(task for task in both if scored_split(config.evaluation, task))
    if not scored:
        names, split = ", ".join(task.name for task in both), config.evaluation.split
        carved = any(task.select for task in both)
        other = ", or score the rows kept from train: --set evaluation.split=select" if carved else ""
        raise UserError(
            f"tasks: none of {names} has a {split} split. Name rows to score in a task file "
            f"(`data.{split}`){other}."
        )
    _check_names(config, {task.name for task in both})
    check_margins(config.evaluation.margins, scored)
    own = own_reading(config.asking, both)
    readings = (own, *further_readings(config.asking, scored))
    stages = tuple(method.stages([task.name for task in trained]))
    return Plan(config, trained, scored, own.prompts, readings, method, stages)


def check_names(config: RunConfig) -> Method:
    """See that what a config names exists and fits together, as far as no data have to be read for it.

    Returns:
        The method.

    Raises:
        UserError: If something does not.
    """
    method = make_method(config.method.name, config.method.options, config.seed)
    method.check(config.adapter)
    _check_average(config, method)
    if shards.wanted() and not method.shards:
        raise UserError(
            f"method.name: {config.method.name} works with whole weights or gradients, which no process of a "
            "sharded model holds; launch without --use_fsdp."
        )
    if config.evaluation.generation.backend == "vllm":
        from forgetmenot.engine.vllm_backend import check_vllm

        check_vllm()
    if any(one.realign for one in config.evaluation.readings):
        check_realign(method, config.method.name)
    for one in config.evaluation.probes:
        check_probe(one.name, one.options)
    refuse_training(config.tasks)
    ours, benchmarks = divided(config.evaluation.also_score)
    check_tasks([*config.tasks, *ours])
    if benchmarks and config.evaluation.split == "select":
        raise UserError(
            f"evaluation.split: select: {benchmarks[0]} is a task of lm-evaluation-harness, on which nothing "
            "is chosen; leave it out of evaluation.also_score."
        )
    check_benchmarks(benchmarks)
    return method


def in_words(config: RunConfig) -> list[str]:
    """What a run is going to do, in two lines.

    Raises:
        UserError: If a task is unknown or named twice.
    """
    ours, benchmarks = divided(config.evaluation.also_score)
    watched = ", ".join([*expand(ours), *benchmarks])
    also = f"; only scored: {watched}" if watched else ""
    how = f"{config.method.name} ({config.adapter.in_words})"
    return [
        f"{config.model.title} learns {', '.join(expand(config.tasks))} by {how}{also}",
        f"Directory: {config.directory}",
    ]


def training_examples(
    config: RunConfig, task: Task, prompt: Prompt, tokenizer: Any, max_length: int
) -> EncodedExamples:
    """A task's training examples as tokens, within the config's limit."""
    return encode_cached(task, prompt, tokenizer, max_length, training_rows(config, task))


def training_rows(config: RunConfig, task: Task) -> Sequence[Example]:
    """A task's training examples, within the config's limit."""
    return sample(task.name, task.train, for_task(config.training.limit, task.name))


def for_task(setting: int | dict[str, int] | None, name: str) -> int | None:
    """A setting's value for one task: the setting itself, or its entry if it has one."""
    return setting.get(name) if isinstance(setting, dict) else setting


def data_folder(config: RunConfig) -> Path | None:
    """The folder of public data sets, environment variables filled in; None for the hub."""
    if config.data_dir is None:
        return None
    written = os.path.expandvars(config.data_dir)
    if unset := re.search(r"\$\{?(\w+)", written):
        raise UserError(
            f"data_dir: the environment variable {unset[1]} is not set; set it to the folder that holds the "
            "data sets (glue/, trace/, …), or give another data_dir."
        )
    folder = at_home(written, "data_dir")
    if not folder.is_dir():
        raise UserError(
            f"data_dir: there is no folder {config.data_dir!r}; give the one that holds the data sets "
            "(glue/, trace/, …)."
        )
    return folder


def check_trackers(config: RunConfig) -> None:
    """Check `trackers` against what Accelerate knows and what is installed; it passes over the latter.

    Raises:
        UserError: If one is unknown or not installed.
    """
    if not config.trackers:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in config.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"trackers: there is no tracker {name!r}. {nearest(name, LOGGER_TYPE_TO_CLASS)}")
        if name not in [str(one.value) for one in get_available_trackers()]:
            raise UserError(
                f"trackers: {name!r} is not installed here; install its package, or leave it out."
            )


def _check_average(config: RunConfig, method: Method) -> None:
    """Refuse a mean over examples where a method's own loss does not weigh them."""
    own = type(method).loss is not Method.loss
    if config.training.loss_average == "example" and own and not method.weighs:
        raise UserError(
            f"training.loss_average: method {config.method.name} has a loss of its own that does not weigh "
            "examples; take token."
        )


def _check_preferences(config: RunConfig, method: Method, trained: Sequence[Task]) -> None:
    """Refuse a method that would train preferences by another loss than theirs."""
    pairs = [task.name for task in trained if task.kind == "preference"]
    if not pairs:
        return
    if not method.preferences or type(method).loss is not Method.loss:
        raise UserError(
            f"tasks: {pairs[0]} holds preferences, whose loss is DPO, and method {config.method.name} has a "
            "loss or gradients of its own for answers; choose another method."
        )
    if method.past_data and len(pairs) < len(trained):
        raise UserError(
            f"tasks: method {config.method.name} would train on preferences ({pairs[0]}) and on answers in "
            "one stage, whose losses have no common unit; choose a method without past data."
        )


def check_margins(
    margins: float | Mapping[str, float] | None, tasks: Sequence[Task], where: str = "evaluation.margin"
) -> None:
    """See that margins are of these tasks and their metrics, and in reach of their scores.

    Args:
        margins: What is set.
        tasks: Those that are scored.
        where: What set them, for error messages.

    Raises:
        UserError: If one is not.
    """
    if not isinstance(margins, Mapping):
        return
    metrics = {task.metric for task in tasks}
    names = {task.name: task.metric for task in tasks} | {metric: metric for metric in metrics}
    for name, margin in margins.items():
        if name not in names:
            raise UserError(f"{where}: there is no task or metric {name!r} here. {nearest(name, names)}")
        if margin >= 1 and metric_named(names[name]).bounded:
            raise UserError(f"{where}: {margin} is no margin for {name}, whose scores lie between 0 and 1.")


def _check_names(config: RunConfig, tasks: set[str]) -> None:
    """Keys that stand for a task must be one of the run's."""
    maps = {
        "prompt": config.prompt,
        "demonstrations.count": config.demonstrations.count,
        "training.epochs": config.training.epochs,
        "training.limit": config.training.limit,
    }
    for key, setting in maps.items():
        for name in setting if isinstance(setting, dict) else ():
            if name not in tasks:
                raise UserError(f"{key}: this run has no task {name!r}. {nearest(name, tasks)}")
