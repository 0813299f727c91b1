"""What a config amounts to, before any model is loaded: tasks, prompts, method, stages."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from forgetmenot.config import RunConfig
from forgetmenot.engine import Decoding, check_vllm
from forgetmenot.errors import UserError, nearest
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.metrics import Stage as Row
from forgetmenot.probes import check_probe
from forgetmenot.prompting import EncodedExamples, Prompt, choose_prompt, encode_cached
from forgetmenot.runs.evaluate import Question, Writing
from forgetmenot.tasks import Example, Task, expand, load_tasks

SAMPLE_SEED = 20250402  # fixed: a limit takes the same examples in every run


@dataclass(frozen=True)
class Plan:
    """A run, ready to start.

    Attributes:
        trained: The tasks with a train split, in order.
        scored: The tasks with a score split, those of `also_score` last: the columns of R.
        prompts: Each task's prompt.
        stages: The training episodes, without the base.
    """

    config: RunConfig
    trained: tuple[Task, ...]
    scored: tuple[Task, ...]
    prompts: dict[str, Prompt]
    method: Method
    stages: tuple[Stage, ...]

    @property
    def rows(self) -> list[Row]:
        """The stages as the score matrix knows them, the base first."""
        trained = [Row(s.name, s.tasks, self.method.follows(s)) for s in self.stages]
        return [Row("00-base"), *trained]

    @property
    def notes(self) -> list[str]:
        """What a person should hear about the data."""
        notes = []
        for task in {task.name: task for task in (*self.trained, *self.scored)}.values():
            notes += [f"{task.name}: {note}" for note in task.notes]
            if task not in self.scored:
                notes.append(f"{task.name}: it has no score split, so it is trained on and has no column.")
            if task not in self.trained and task.name not in self.config.evaluation.also_score:
                notes.append(f"{task.name}: it has no train split, so it is only scored.")
        return notes


Load = Callable[[Sequence[str], Path | None], list[Task]]


def make_plan(config: RunConfig, load: Load = load_tasks) -> Plan:
    """Load the tasks, choose the prompts and ask the method for its stages.

    Args:
        config: The run's.
        load: What loads tasks by name.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    method = make_method(config.method.name, config.method.options, config.seed)
    method.check(config.adapter)
    for one in config.evaluation.probes:
        check_probe(one.name, one.options)
    if config.evaluation.generation.backend == "vllm":
        check_vllm()
    both = load([*config.tasks, *config.evaluation.also_score], data_folder(config))
    ordered = both[: len(expand(config.tasks))]
    trained = tuple(task for task in ordered if task.train)
    if not trained:
        raise UserError(f"tasks: none of {', '.join(task.name for task in ordered)} has a train split.")
    scored = tuple(task for task in both if task.score)
    if not scored:
        raise UserError(f"tasks: none of {', '.join(task.name for task in both)} has a score split.")
    _check_names(config, {task.name for task in both})
    prompts = {task.name: choose_prompt(task, variant_of(config, task.name)) for task in both}
    for variant in config.evaluation.prompts:
        for task in scored:
            choose_prompt(task, variant)
    stages = tuple(method.stages([task.name for task in trained]))
    return Plan(config, trained, scored, prompts, method, stages)


def training_examples(
    config: RunConfig, task: Task, prompt: Prompt, tokenizer: Any, max_length: int
) -> EncodedExamples:
    """A task's training examples as tokens, within the config's limit."""
    examples = sample(task.name, task.train, for_task(config.training.limit, task.name))
    return encode_cached(task, prompt, tokenizer, max_length, examples)


def question(config: RunConfig, task: Task, prompt: Prompt, tokenizer: Any, max_length: int) -> Question:
    """A task's score split as it is put to the model."""
    examples = sample(task.name, task.score, config.evaluation.limit)
    writing = writing_of(config, task)
    room = (
        min(writing.decoding.max_new_tokens, max_length // 3) if writing and task.kind == "answer" else None
    )
    encoded = encode_cached(task, prompt, tokenizer, max_length, examples, room)
    return Question(task, prompt, examples, encoded, writing=writing)


def writing_of(config: RunConfig, task: Task) -> Writing | None:
    """How a task's answers are generated: by the task's own settings, within the config's."""
    if task.kind not in ("answer", "messages") or task.metric == "loss":
        return None
    own, settings = task.generation, config.evaluation.generation
    most = own.max_new_tokens
    if settings.max_new_tokens != "auto":
        most = min(most, settings.max_new_tokens)
    decoding = Decoding(most, own.stop, settings.temperature, settings.top_k, settings.top_p)
    tokens = None if settings.batch_tokens == "auto" else settings.batch_tokens
    return Writing(decoding, config.seed, settings.margins, tokens, settings.backend == "vllm")


def sample(name: str, examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """At most `limit` examples, drawn by the task's name alone, in their own order."""
    if limit is None or limit >= len(examples):
        return examples
    drawn = np.random.default_rng([SAMPLE_SEED, zlib.crc32(name.encode())]).permutation(len(examples))
    return [examples[k] for k in sorted(drawn[:limit].tolist())]


def for_task(setting: int | dict[str, int] | None, name: str) -> int | None:
    """A setting's value for one task: the setting itself, or its entry if it has one."""
    return setting.get(name) if isinstance(setting, dict) else setting


def data_folder(config: RunConfig) -> Path | None:
    """Where public data sets lie on disk; None for the hub."""
    if config.data_dir is None:
        return None
    folder = Path(config.data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"data_dir: there is no folder {config.data_dir!r}; give the one that holds glue/.")
    return folder


def check_trackers(config: RunConfig) -> None:
    """Hold `trackers` against what Accelerate knows and what is installed; it passes over the latter.

    Raises:
        UserError: If one is unknown or not installed.
    """
    for name in config.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"trackers: there is no tracker {name!r}. {nearest(name, LOGGER_TYPE_TO_CLASS)}")
        if name not in [str(one.value) for one in get_available_trackers()]:
            raise UserError(
                f"trackers: {name!r} is not installed here; install its package, or leave it out."
            )


def variant_of(config: RunConfig, task: str) -> str:
    """The prompt variant that a config names for a task."""
    if isinstance(config.prompt, dict):
        return config.prompt.get(task, "default")
    return config.prompt


def _check_names(config: RunConfig, tasks: set[str]) -> None:
    """Keys that stand for a task must be one of the run's."""
    maps = {
        "prompt": config.prompt,
        "training.epochs": config.training.epochs,
        "training.limit": config.training.limit,
    }
    for key, setting in maps.items():
        for name in setting if isinstance(setting, dict) else ():
            if name not in tasks:
                raise UserError(f"{key}: this run has no task {name!r}. {nearest(name, tasks)}")
