"""The choice of a prompt: the variants of each task, scored on `select` and compared with the best."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot.config import RunConfig, load_config
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import prompt_for, scored_task, scoring_rule_of
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import make_method
from forgetmenot.metrics import Ranking, metric_named, rank_variants
from forgetmenot.paths import filled, model_name
from forgetmenot.prompting import Prompt, prompts_of
from forgetmenot.record.predictions import Predictions, as_measured, require_finite
from forgetmenot.report.prompt_tables import print_prompts, prompts_page
from forgetmenot.report.screen import Screen
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import data_folder
from forgetmenot.tasks import Task, load_tasks
from forgetmenot.tasks.yaml_file import write_yaml

if TYPE_CHECKING:
    import pandas as pd

    from forgetmenot.runs.session import Session

OUTPUT = "prompts/{model}-{hash}"
CHOSEN = "chosen.yaml"


@dataclass(frozen=True)
class PromptChoice:
    """Prompt variants of some tasks, compared.

    Attributes:
        path: The directory with prompts.json, prompts.html and chosen.yaml.
        found: The content of prompts.json.
    """

    path: Path
    found: dict[str, Any]

    @property
    def chosen(self) -> dict[str, str]:
        """The best variant of each task: what `prompt` of a config takes."""
        return {task: one["chosen"] for task, one in self.found["tasks"].items() if one["chosen"]}

    @property
    def table(self) -> pd.DataFrame:
        """A row for each variant of each task: score, interval, and the distance to the best."""
        import pandas as pd

        rows = [
            {"task": task, "prompt": name, **variant, **_ends(variant["interval"])}
            for task, one in self.found["tasks"].items()
            for name, variant in one["variants"].items()
        ]
        columns = ["task", "prompt", "value", "low", "high", "behind", "p", "p_holm", "unparsed", "hash"]
        return pd.DataFrame(rows, columns=columns)

    def print(self, console: Console | None = None) -> None:
        """Print a table for each task."""
        print_prompts(self.found, console or Screen())


def prompts(
    model: str | Mapping[str, Any],
    tasks: str | Sequence[str],
    *,
    data_dir: str | Path | None = None,
    prompts: Sequence[str] = (),
    limit: int | None = None,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> PromptChoice:
    """Score the prompt variants of tasks on `select`, and say which is best, and whether that is chance.

    Nothing is trained, and `score` is not looked at.

    Args:
        model: As a config's `model`; a directory that `fmn export` wrote is one, too.
        tasks: Names, suites and task files.
        data_dir: A folder with public data sets; None for the hub.
        prompts: The variants; all of a task if empty, except chats if the model has no template.
        limit: Of a fixed random sample of each task's `select`.
        output: A directory; made of the model's name and a hash if None.
        settings: Further dotted keys of a config, such as {"demonstrations": 4}.
        console: Where to show progress.

    Raises:
        UserError: If anything named does not exist or fit, or a task has no `select` or no choice of prompt.
    """
    named = {"model": model, "tasks": tasks, "evaluation.limit": limit}
    if data_dir is not None:
        named["data_dir"] = str(data_dir)
    config = load_config(None, {**named, **(settings or {})})
    loaded = [_on_select(task) for task in load_tasks(config.tasks, data_folder(config))]
    chosen = {task.name: _variants(config, task, prompts) for task in loaded}
    for task in loaded:
        for prompt in chosen[task.name].values():
            scoring_rule_of(config.evaluation, [task], {task.name: prompt}, "evaluation")
    directory = RunDirectory(Path(output) if output is not None else _directory(config, prompts))
    from forgetmenot.runs.session import open_session

    with opened(directory, console, "prompts") as display:
        session = open_session(config)
        has_chat = bool(session.learner.tokenizer.chat_template)
        found: dict[str, Any] = {}
        for task in loaded:
            asked, left_out = {}, {}
            for name, prompt in chosen[task.name].items():
                if prompt.chat and not has_chat and not prompts:
                    left_out[name] = "the model has no chat template"
                else:
                    asked[name] = _scored(config, task, prompt, session)
            if not asked:
                raise UserError(f"task {task.name!r} has no prompt that fits this model.")
            if not found:
                first = next(iter(asked.values()))
                session.examine(first.first_sequences(config.training.batch_size))
            found[task.name] = _compared(
                task, asked, _answers(session, config, task, asked, display), left_out
            )
        content = {
            "version": 1,
            "model": config.model.title,
            **{key: session.identity[key] for key in ("model_revision", "device", "dtype", "layout")},
            "split": "select",
            "limit": config.evaluation.limit,
            "tasks": found,
        }
        choice = PromptChoice(directory.path, content)
        directory.write_json("prompts.json", content)
        directory.write_text("prompts.html", prompts_page(content))
        directory.write_text(CHOSEN, _chosen_yaml(choice))
    return choice


def _on_select(task: Task) -> Task:
    """The task with `select` in the place of `score`: prompts are chosen on the one, R measured on the other.

    Raises:
        UserError: It has no `select`, or no prompt to choose.
    """
    if task.kind not in ("choice", "answer"):
        raise UserError(f"task {task.name!r} is one of {task.kind}, which has no prompts to choose from.")
    if not task.select:
        raise UserError(
            f"task {task.name!r} has no `select` split to choose a prompt on: its train split is missing or "
            "too small to carve one; give `data.select` in the task's file."
        )
    return replace(task, score=task.select)


def _variants(config: RunConfig, task: Task, names: Sequence[str]) -> dict[str, Prompt]:
    return {name: prompt_for(task, name, config.demonstrations) for name in names or prompts_of(task)}


def _scored(config: RunConfig, task: Task, prompt: Prompt, session: Session) -> ScoredTask:
    rule = scoring_rule_of(config.evaluation, [task], {task.name: prompt}, "evaluation")
    return scored_task(config.asking, task, prompt, session.learner, session.max_length, rule)


def _answers(
    session: Session, config: RunConfig, task: Task, asked: Mapping[str, ScoredTask], display: Display
) -> dict[str, Predictions]:
    method = make_method("sequential", {}, config.seed)
    total = sum(one.count() for one in asked.values())
    with display.progress(f"{task.name}: scoring", total) as advance:
        return {name: evaluate(session.learner, method, one, advance) for name, one in asked.items()}


def _compared(
    task: Task,
    asked: Mapping[str, ScoredTask],
    answers: Mapping[str, Predictions],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """What prompts.json holds of one task."""
    require_finite(task.name, answers.values())
    pairs = {name: as_measured(task.metric, one) for name, one in answers.items()}
    gold = next(iter(pairs.values()))[0]
    ranking = rank_variants(task.metric, gold, {name: pair[1] for name, pair in pairs.items()})
    first = next(iter(asked.values()))
    return {
        "metric": task.metric,
        "metric_version": metric_named(task.metric).version,
        "n": len(first.examples),
        "majority": first.majority,
        "chosen": ranking.best,
        "range": ranking.range,
        "range_by_chance": ranking.range_by_chance,
        "range_p": ranking.p,
        "variants": {name: _variant(name, asked[name], answers[name], ranking) for name in asked},
        "left_out": dict(left_out),
    }


def _variant(name: str, scored: ScoredTask, predictions: Predictions, ranking: Ranking) -> dict[str, Any]:
    ranked = ranking.ranked[name]
    behind = ranked.behind
    written = scored.rule.generates and scored.task.kind == "choice"
    return {
        "hash": scored.prompt.hash,
        **scored.described,
        "value": ranked.value,
        "interval": list(ranked.interval) if ranked.interval else None,
        "behind": behind.difference if behind else None,
        "behind_interval": list(behind.interval) if behind and behind.interval else None,
        "p": behind.p if behind else None,
        "p_holm": behind.p_holm if behind else None,
        "test": behind.test if behind else None,
        "unparsed": predictions.unparsed if written else None,
        "truncated": scored.encoded.truncated,
    }


def _directory(config: RunConfig, names: Sequence[str]) -> Path:
    hash = hashlib.sha256(",".join([config.hash, *names]).encode()).hexdigest()[:8]
    return filled(OUTPUT, {"model": model_name(config.model.title), "hash": hash})


def _chosen_yaml(choice: PromptChoice) -> str:
    head = (
        f"# The best prompt of each task for {choice.found['model']} on `select`; see prompts.json.\n"
        f"# fmn run --prompt {CHOSEN}\n"
    )
    return head + write_yaml(choice.chosen)


def _ends(interval: Sequence[float] | None) -> dict[str, float | None]:
    return {"low": interval[0], "high": interval[1]} if interval else {"low": None, "high": None}
