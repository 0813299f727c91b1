"""The ways in which a run puts its tasks to the model: its own, and the readings beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from forgetmenot.config import RunConfig, path_safe
from forgetmenot.errors import UserError
from forgetmenot.evaluation_config import EvaluationSettings, ReadingSettings
from forgetmenot.prompting import Demonstrations, DemonstrationSettings, Prompt, choose_prompt
from forgetmenot.runs.choice import BY_LIKELIHOOD, Way
from forgetmenot.tasks import Task


@dataclass(frozen=True)
class Reading:
    """One way of putting tasks to the model.

    Attributes:
        name: What tells it from the run's others: "instruction", "generation", "8-shot"; "" for its own.
        prompts: The prompt of each task that is asked; tasks that would be asked as in the run's own reading
            are left out of others.
        way: How a choice among labels is read.
    """

    name: str
    prompts: dict[str, Prompt]
    way: Way


def own_reading(config: RunConfig, tasks: Sequence[Task]) -> Reading:
    """The run's own: its prompts, in which it trains too, and how it reads choices.

    Raises:
        UserError: A task has no such prompt, or cannot be asked so.
    """
    prompts = {task.name: prompt_for(task, config.prompt, config.demonstrations) for task in tasks}
    way = way_of(config.evaluation, tasks, prompts, "evaluation")
    return Reading("", prompts, way)


def further_readings(config: RunConfig, tasks: Sequence[Task]) -> list[Reading]:
    """The readings of `evaluation.prompts` and `evaluation.readings`, in order.

    Raises:
        UserError: A task has no such prompt, cannot be asked so, or two readings are the same.
    """
    asked = [
        (f"evaluation.prompts.{k}", ReadingSettings(prompt=name), name)
        for k, name in enumerate(config.evaluation.prompts)
    ]
    asked += [
        (f"evaluation.readings.{k}", one, title(one)) for k, one in enumerate(config.evaluation.readings)
    ]
    found: dict[str, Reading] = {}
    for where, settings, name in asked:
        if name in found:
            raise UserError(f"{where}: there is a reading {name!r} already; leave one of them out.")
        found[name] = reading_of(config, settings, tasks, where, name)
    return list(found.values())


def reading_of(
    config: RunConfig, settings: ReadingSettings, tasks: Sequence[Task], where: str, name: str
) -> Reading:
    """A reading beside the run's own.

    Args:
        config: The run's; what `settings` does not name is as there.
        settings: What differs.
        tasks: Those that the run scores.
        where: The key that it stands under, for what is wrong with it.
        name: Of the reading.
    """
    chosen = config.prompt if settings.prompt is None else settings.prompt
    shown = config.demonstrations if settings.demonstrations is None else settings.demonstrations
    if settings.prompt is None and settings.demonstrations is None:
        tasks = [task for task in tasks if task.kind == "choice"]  # the others would be asked as before
    prompts = {task.name: prompt_for(task, chosen, shown) for task in tasks}
    named = settings.model_dump(include={"scoring", "normalization", "calibration"}, exclude_none=True)
    if named.get("scoring") == "generation":  # the run's own refinements of the likelihood fall away
        named = {"normalization": "none", "calibration": "none", **named}
    evaluation = config.evaluation.model_copy(update=named)
    return Reading(name, prompts, way_of(evaluation, tasks, prompts, where))


def title(settings: ReadingSettings) -> str:
    """A name for a reading, made of what it names: "instruction-generation", "8-shot-each"."""
    named: dict[str, Any] = settings.model_dump(exclude_none=True)
    parts = []
    if settings.prompt is not None:
        prompt = settings.prompt
        parts += [prompt] if isinstance(prompt, str) else [f"{k}-{v}" for k, v in sorted(prompt.items())]
    if (shown := settings.demonstrations) is not None:
        count = shown.count
        many = (
            f"{count}" if isinstance(count, int) else "-".join(f"{k}-{v}" for k, v in sorted(count.items()))
        )
        default = DemonstrationSettings()
        parts.append(f"{many}-shot")
        parts += [shown.draw] if shown.draw != default.draw else []
        parts += ["unbalanced"] if not shown.balanced else []
        parts += [f"seed-{shown.seed}"] if shown.seed != default.seed else []
    for key, plain in (
        ("scoring", "likelihood"),
        ("normalization", "unnormalized"),
        ("calibration", "uncalibrated"),
    ):
        if key in named:
            parts.append(plain if named[key] == "none" else named[key])
    return path_safe("-".join(parts))


def prompt_for(task: Task, chosen: str | dict[str, str], shown: DemonstrationSettings) -> Prompt:
    """A task's prompt with its demonstrations.

    Raises:
        UserError: The task has no such variant, or too little to show.
    """
    prompt = choose_prompt(task, variant_for(chosen, task.name))
    if not shown.count_for(task.name):
        return prompt
    return replace(prompt, demonstrations=Demonstrations(task, shown))


def variant_for(chosen: str | dict[str, str], task: str) -> str:
    """The variant that is chosen for a task; `default` where a map does not name it."""
    return chosen.get(task, "default") if isinstance(chosen, dict) else chosen


def way_of(
    evaluation: EvaluationSettings, tasks: Sequence[Task], prompts: dict[str, Prompt], where: str
) -> Way:
    """How choices are read, held against the tasks that are.

    Raises:
        UserError: A setting is used by none of the tasks, or does not fit one of them.
    """
    way = Way(evaluation.scoring, evaluation.normalization, evaluation.calibration)
    if way == BY_LIKELIHOOD:
        return way
    choices = [task for task in tasks if task.kind == "choice" and (task.score or task.select)]
    if not choices:
        raise UserError(f"{where}: {way} is for tasks that choose among labels, and there is none here.")
    if way.scoring == "generation" and (way.normalization, way.calibration) != ("none", "none"):
        raise UserError(
            f"{where}: normalization and calibration are for scoring: likelihood; "
            "what is generated has no candidates to compare."
        )
    for task in choices:
        way.check(task, prompts[task.name], where)
    return way
