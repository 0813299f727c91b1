"""The data set of a synthesis: a task file with its rows, the config that trains on it, and a data card."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from forgetmenot.prompting import Prompt
from forgetmenot.synthesis.subject import Subject, guided_prompt
from forgetmenot.tasks import Example

GUIDED, BARE, IN_CONTEXT = "default", "without-demonstrations", "in-context"
"""The prompts of the task that is written."""

TRAINING = {
    "epochs": 3,
    "batch_size": 10,
    "learning_rate": 5e-5,
    "schedule": "linear",
    "warmup_ratio": 0.0,
    "max_grad_norm": 1.0,
}
"""SELF-GUIDE's fine-tune: three epochs of all weights, with the defaults of Transformers' Trainer; batches as
in the quick-start script (the other script has 1)."""

MAX_LENGTH = 3500
"""The most tokens of a training example, as in the quick-start script."""


def row_of(subject: Subject, example: Example, column: str) -> dict[str, Any]:
    """An example as a line of a file: the fields of an input, and the label or target."""
    answer = example.label if subject.task.kind == "choice" else example.target
    return {**{name: example.fields[name] for name in subject.fields}, column: answer}


def answer_column(subject: Subject) -> str:
    """The column of the answer, whose name is no field's."""
    column = "label" if subject.task.kind == "choice" else "target"
    while column in subject.fields:
        column = f"gold_{column}"
    return column


def task_file(subject: Subject, splits: Iterable[str], in_context: Prompt | None) -> dict[str, Any]:
    """The content of the task's YAML.

    Args:
        subject: What the rows were written for.
        splits: Those that have a file, `train` first.
        in_context: The prompt that shows written rows instead of learning them.
    """
    task, kind = subject.task, "label" if subject.task.kind == "choice" else "target"
    prompts = {GUIDED: subject.guided, BARE: subject.prompt}
    prompts |= {IN_CONTEXT: in_context} if in_context is not None else {}
    content: dict[str, Any] = {
        "name": f"{task.name}-self-guide",
        "data": {split: f"{split}.jsonl" for split in splits},
        kind: answer_column(subject),
        "metric": task.metric,
        "prompts": {name: _plain(prompt) for name, prompt in prompts.items()},
    }
    if kind == "target":
        rules = task.generation
        content["generation"] = {
            "max_new_tokens": rules.max_new_tokens,
            "stop": list(rules.stop) or ([] if subject.prompt.chat else ["\n\n"]),
            "extract": list(rules.extract),
        }
    if subject.instruction:
        content["instruction"] = subject.instruction
    return content


def run_config(
    subject: Subject, model: Any, output: str, seed: int, positions: int | None, in_context: bool
) -> dict[str, Any]:
    """The config that fine-tunes the model on the rows as the paper does, and scores it before and after.

    A task without real rows to score is scored on the tenth of its own rows that is carved off: whether the
    model agrees with itself, and no more.

    Args:
        subject: What the rows were written for.
        model: As a config's `model`.
        output: The run's directory.
        seed: Of the run.
        positions: How many the model has.
        in_context: Whether the task has the prompt of that name.
    """
    choice = subject.task.kind == "choice"
    likelihood = {"scoring": "likelihood"}
    readings: list[dict[str, str]] = [likelihood] if choice else []
    if in_context:
        readings += [{"prompt": IN_CONTEXT}, *([{"prompt": IN_CONTEXT, **likelihood}] if choice else [])]
    evaluation: dict[str, Any] = {"scoring": "last-label"} if choice else {}
    if not subject.task.score:
        evaluation["split"] = "select"
    return {
        "model": model,
        "tasks": ["task.yaml"],
        "adapter": {"kind": "full"},
        "training": {**TRAINING, "max_length": min(MAX_LENGTH, positions or MAX_LENGTH)},
        "evaluation": {**evaluation, "readings": readings},
        "seed": seed,
        "output": output,
    }


def in_context_prompt(
    subject: Subject, rows: Sequence[Example], fits: Callable[[Prompt], bool]
) -> tuple[Prompt | None, int]:
    """The prompt that shows the demonstrations and as many rows as fit, and how many these are.

    The rows come in the order of their ids' digits turned round, which mixes labels and rounds whatever the
    order in which they were written.
    """
    mixed = sorted(rows, key=lambda row: row.id[::-1])

    def shows(count: int) -> Prompt:
        shown = [*subject.demonstrations, *mixed[:count]]
        return guided_prompt(
            subject.prompt, shown, [subject.answer(one) for one in shown], subject.instruction
        )

    least, most = 0, len(mixed)
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(shows(middle)) else (least, middle - 1)
    return (shows(least), least) if least else (None, 0)


def _plain(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a variant of a task file."""
    written = {one.name: getattr(prompt, one.name) for one in fields(prompt)}
    del written["name"], written["demonstrations"]
    usual = Prompt("", "", separator="" if prompt.chat else " ")
    kept = {name: value for name, value in written.items() if value != getattr(usual, name)}
    return {
        name: dict(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in kept.items()
    }


def card(content: Mapping[str, Any]) -> str:
    """The data card of a synthesis.json: Markdown for whoever finds the folder."""
    lines = [
        f"# {content['task']}: rows written by {content['model']}",
        "",
        f"{content['rows']:,} rows in train.jsonl were written and answered by the model itself, by "
        "SELF-GUIDE (Zhao et al. 2024, arXiv 2407.12874), from the demonstrations below. No person has read "
        "them: their answers are the model's, and some are wrong. score.jsonl and select.jsonl, where they "
        "are there, are real rows of the task.",
        "",
        f"- Model: {content['model']} ({content['model_revision']})",
        f"- Task: {content['task']}, {content['origin'] or 'of unknown origin'}",
        f"- Prompt: {content['prompt']}, with the demonstrations before each input",
        f"- Seed: {content['seed']}; variant of the official scripts: {content['settings']['variant']}",
        f"- Answers are read so: {content['read_by']}",
        "- Use: to fine-tune this model for this task (`fmn run run.yaml`). Not for measuring: what the "
        "model cannot do, it does not ask itself.",
        "- Terms: the demonstrations are rows of the task's data, whose terms apply to them, and the "
        "model's terms apply to what it wrote.",
        "",
        "## What was kept",
        "",
        "| step | entered | dropped | left |",
        "|---|---|---|---|",
        *(
            f"| {step['name']} | {step['entered']:,} | {_reasons(step)} | {step['left']:,} |"
            for step in content["funnel"]
        ),
        "",
        *(
            [f"Labels: {', '.join(f'{label} {count}' for label, count in content['labels'].items())}.", ""]
            if content["labels"]
            else []
        ),
        "## Demonstrations",
        "",
        *(f"- `{one['id']}`: {one['input']!r} → {one['answer']!r}" for one in content["demonstrations"]),
        "",
        "## Settings",
        "",
        *(f"- {name}: {value!r}" for name, value in content["settings"].items()),
    ]
    return "\n".join(lines) + "\n"


def _reasons(step: Mapping[str, Any]) -> str:
    said = [f"{reason} {count:,}" for reason, count in step["dropped"].items() if count]
    return ", ".join(said) or "0"
