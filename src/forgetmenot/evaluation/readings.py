"""Readings: the ways in which a run puts its tasks to the model, its own and those beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.scored_task import GenerationPlan, ScoredTask
from forgetmenot.evaluation.scoring import BY_LIKELIHOOD, ScoringRule
from forgetmenot.evaluation.settings import Asking, EvaluationSettings, ReadingSettings
from forgetmenot.metrics import metric_named
from forgetmenot.paths import path_safe
from forgetmenot.prompting import (
    Demonstrations,
    DemonstrationSettings,
    EncodedExamples,
    Prompt,
    PromptVariants,
    choose_prompt,
    encode_cached,
    prompts_of,
)
from forgetmenot.tasks import Example, Task, sample

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


@dataclass(frozen=True)
class Reading:
    """One way of putting tasks to the model.

    Attributes:
        name: What tells it from the run's others: "instruction", "generation", "8-shot"; "" for its own.
        prompts: The prompt of each scored task; tasks that would be scored as in the run's own reading
            are left out of others.
        rule: How a choice among labels is scored.
        realign: On how many training examples the model is aligned anew before a task is asked.
        without: The names of tasks that it leaves out because they have no prompt of the name it asks for.
    """

    name: str
    prompts: dict[str, Prompt]
    rule: ScoringRule
    realign: int = 0
    without: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Messages to the user about what is not asked."""
        return [
            f"{task}: it has no such prompt, so the reading {self.name} leaves it out."
            for task in self.without
        ]


def own_reading(asking: Asking, tasks: Sequence[Task]) -> Reading:
    """The run's own: its prompts, in which it trains too, and how it scores choices.

    Raises:
        UserError: A task has no such prompt, or cannot be asked so.
    """
    prompts = {task.name: prompt_for(task, asking.prompt, asking.demonstrations) for task in tasks}
    rule = scoring_rule_of(asking.evaluation, tasks, prompts, "evaluation")
    return Reading("", prompts, rule)


def further_readings(asking: Asking, tasks: Sequence[Task]) -> list[Reading]:
    """The readings of `evaluation.prompts` and `evaluation.readings`, in order.

    Raises:
        UserError: A task has no such prompt, cannot be asked so, or two readings are the same.
    """
    evaluation = asking.evaluation
    asked = [
        (f"evaluation.prompts.{k}", ReadingSettings(prompt=name), name)
        for k, name in enumerate(evaluation.prompts)
    ]
    asked += [
        (f"evaluation.readings.{k}", settings, title(settings))
        for k, settings in enumerate(evaluation.readings)
    ]
    found: dict[str, Reading] = {}
    for where, settings, name in asked:
        if name in found:
            raise UserError(f"{where}: there is a reading {name!r} already; leave one of them out.")
        found[name] = reading_of(asking, settings, tasks, where, name)
    return list(found.values())


def reading_of(
    asking: Asking, settings: ReadingSettings, tasks: Sequence[Task], where: str, name: str
) -> Reading:
    """A reading beside the run's own.

    Args:
        asking: How the run asks; what `settings` does not name is as there.
        settings: What differs.
        tasks: Those that the run scores.
        where: Its key in the config, for error messages.
        name: Of the reading.
    """
    tasks = [task for task in tasks if not isinstance(task, Benchmark)]
    if not tasks:
        raise UserError(f"{where}: lm-eval asks its tasks in its own way alone, and no other is scored here.")
    chosen = asking.prompt if settings.prompt is None else settings.prompt
    shown = asking.demonstrations if settings.demonstrations is None else settings.demonstrations
    if settings.realign is not None:
        tasks = [task for task in tasks if task.train]
        if not tasks:
            raise UserError(f"{where}: realign trains on a task's own examples, and no task here has any.")
    elif settings.prompt is None and settings.demonstrations is None:
        tasks = [task for task in tasks if task.kind == "choice"]  # the others would be asked as before
    have, without = tasks, list[Task]()
    if isinstance(settings.prompt, str):  # where none has it, the first says so
        have = [task for task in tasks if chosen in prompts_of(task)] or tasks
        without = [task for task in tasks if task not in have]
    tasks = have
    prompts = {task.name: prompt_for(task, chosen, shown) for task in tasks}
    named = settings.model_dump(include={"scoring", "normalization", "calibration"}, exclude_none=True)
    if "scoring" in named and ScoringRule(named["scoring"]).generates:
        # The run's own refinements of the likelihood fall away.
        named = {"normalization": "none", "calibration": "none", **named}
    evaluation = asking.evaluation.model_copy(update=named)
    rule = scoring_rule_of(evaluation, tasks, prompts, where)
    left_out = tuple(task.name for task in without)
    return Reading(name, prompts, rule, settings.realign or 0, left_out)


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
    parts += [f"realigned-{settings.realign}"] if settings.realign else []
    return path_safe("-".join(parts))


def prompt_for(task: Task, chosen: PromptVariants, shown: DemonstrationSettings) -> Prompt:
    """A task's prompt with its demonstrations; a benchmark's is lm-eval's own, whatever is chosen for all.

    Raises:
        UserError: The task has no such variant, or too little to show.
    """
    if isinstance(task, Benchmark):
        for key, setting in (("prompt", chosen), ("demonstrations.count", shown.count)):
            if isinstance(setting, dict) and task.name in setting:
                raise UserError(f"{key}: {task.name!r} has lm-eval's prompt and shots; leave it out here.")
        return task.prompt
    prompt = choose_prompt(task, variant_for(chosen, task.name))
    if not shown.count_for(task.name):
        return prompt
    return replace(prompt, demonstrations=Demonstrations(task, shown))


def variant_for(chosen: PromptVariants, task: str) -> str:
    """The variant that is chosen for a task; `default` where a map does not name it."""
    return chosen.get(task, "default") if isinstance(chosen, dict) else chosen


def scoring_rule_of(
    evaluation: EvaluationSettings, tasks: Sequence[Task], prompts: dict[str, Prompt], where: str
) -> ScoringRule:
    """How choices are scored, checked against the scored tasks.

    Raises:
        UserError: A setting is used by none of the tasks, or does not fit one of them.
    """
    rule = ScoringRule(evaluation.scoring, evaluation.normalization, evaluation.calibration)
    if rule == BY_LIKELIHOOD:
        return rule
    choices = [task for task in tasks if task.kind == "choice" and (task.score or task.select)]
    if not choices:
        raise UserError(f"{where}: {rule} is for classification tasks, and there is none here.")
    if rule.generates and (rule.normalization, rule.calibration) != ("none", "none"):
        raise UserError(
            f"{where}: normalization and calibration are for scoring: likelihood; "
            "what is generated has no candidates to compare."
        )
    for task in choices:
        rule.check(task, prompts[task.name], where)
    return rule


def scored_tasks(
    asking: Asking, reading: Reading, tasks: Sequence[Task], learner: "Learner", max_length: int
) -> list[ScoredTask]:
    """What a reading asks of those of its tasks that are among these."""
    return [
        scored_task(
            asking, task, reading.prompts[task.name], learner, max_length, reading.rule, reading.realign
        )
        for task in tasks
        if task.name in reading.prompts
    ]


def scored_task(
    asking: Asking,
    task: Task,
    prompt: Prompt,
    learner: "Learner",
    max_length: int,
    rule: ScoringRule = BY_LIKELIHOOD,
    realign: int = 0,
) -> ScoredTask:
    """A task ready for scoring: the examples within the limit, as tokens.

    Args:
        asking: How the run asks.
        task: One of ours, or a benchmark, whose tokens are cut to the model's own length as lm-eval does.
        prompt: The task's.
        learner: Whose tokenizer makes tokens.
        max_length: The most of them.
        rule: How a choice among labels is scored.
        realign: On how many training examples the model is aligned anew before.
    """
    limit = asking.evaluation.limit
    examples = sample(task.name, scored_split(asking.evaluation, task), limit)
    if isinstance(task, Benchmark):
        written = written_by(asking, task.decoding(learner)) if task.is_written else None
        return ScoredTask(task, prompt, examples, task.encoded(learner, examples), generation=written)
    tokenizer = learner.tokenizer
    plan = generation_plan(asking, task)
    reserved = None
    if plan and task.kind == "answer":
        reserved = min(plan.decoding.max_new_tokens, max_length // 3)
    encoded = encode_cached(task, prompt, tokenizer, max_length, examples, reserved)
    again = EncodedExamples.of([])
    if realign:
        again = encode_cached(task, prompt, tokenizer, max_length, sample(task.name, task.train, realign))
    if task.kind != "choice":
        return ScoredTask(task, prompt, examples, encoded, generation=plan, realign=again)
    calibrates = sample(task.name, rule.reference(task, prompt), limit)
    reference = encode_cached(task, prompt, tokenizer, max_length, calibrates)
    return ScoredTask(task, prompt, examples, encoded, rule, reference, realign=again)


def scored_split(evaluation: EvaluationSettings, task: Task) -> Sequence[Example]:
    """The split of a task that is scored, perhaps empty."""
    return task.select if evaluation.split == "select" else task.score


def generation_plan(asking: Asking, task: Task) -> GenerationPlan | None:
    """How a task's answers are generated: by the task's own settings, within the config's."""
    if task.kind not in ("answer", "messages") or metric_named(task.metric).reads == "likelihoods":
        return None
    own, settings = task.generation, asking.evaluation.generation
    longest = own.max_new_tokens
    if settings.max_new_tokens != "auto":
        longest = min(longest, settings.max_new_tokens)
    return written_by(
        asking, Decoding(longest, own.stop, settings.temperature, settings.top_k, settings.top_p)
    )


def written_by(asking: Asking, decoding: Decoding) -> GenerationPlan:
    """How answers are generated by a decoding, as the config says beside it."""
    settings = asking.evaluation.generation
    tokens = None if settings.batch_tokens == "auto" else settings.batch_tokens
    return GenerationPlan(decoding, asking.seed, settings.margins, tokens, settings.backend == "vllm")
