"""SELF-GUIDE on a bundled task, where the true label of what was written is known: the noise of its labels.

    python -m scripts.self_guide_bundled OUT [--write]

The bundled model was never asked to write a review for a request, so it learns that first, as a run like any
other: from WRITTEN requests that real reviews answer, and ANSWERED reviews with their labels after a few
demonstrations. What it writes then is judged by the grammar of the bundled reviews (quickstart/
true_sentiment.py): whether the grammar could have written it, and whether its label is the true one.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetmenot.prompting import Demonstrations, DemonstrationSettings, choose_prompt
from forgetmenot.record.files import write_text
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import run
from forgetmenot.runs.export import export
from forgetmenot.synthesis.subject import Subject
from forgetmenot.tasks import Task, load_tasks
from forgetmenot.tasks.yaml_file import write_yaml
from scripts.quickstart.true_sentiment import true_sentiment
from scripts.self_guide import in_words, measure, write

TASK = "qs-sentiment"
WRITTEN, ANSWERED, DEMONSTRATION_SETS = 900, 1200, 6
LEARN = {"adapter.kind": "full", "training.epochs": 3, "training.batch_size": 16, "checkpoints": "last"}
SETTINGS = {
    "worse": 2,
    "context_tokens": 480,
    "max_input_tokens": 40,
    "max_output_tokens": 8,
    "training.learning_rate": "auto",
    "training.batch_size": 10,
}
"""The model has 512 positions; 5e-5 is too low a rate for its 2.6 million parameters."""

LARGE = {"rounds": 30, "per_round": 40}
SURE = {"output_temperature": 1.0, "output_top_k": 0, "min_frequency": 0.9}
VARIANTS: dict[str, dict[str, Any]] = {
    TASK: {},
    "more": LARGE,
    "sure": {**LARGE, **SURE},
    "agreed": {**LARGE, **SURE, "best_of": 10},
}
"""What is measured: the defaults, three times as many rows, and of these only what is answered surely, by the
ten likeliest of twenty outputs, and by all ten that are drawn."""


def lessons(task: Task) -> list[dict[str, str]]:
    """Requests for an input with a real one, and inputs with their label, each after some demonstrations."""
    draw, prompt, rows = random.Random(0), choose_prompt(task, "default"), []
    for number in range(DEMONSTRATION_SETS):
        shown = Demonstrations(task, DemonstrationSettings(count=3, seed=1000 + number)).fixed
        subject = Subject(task, prompt, shown)
        others = [one for one in task.train if one not in shown]
        for one in draw.sample(others, WRITTEN // DEMONSTRATION_SETS):
            worse = [str(another.fields["sentence"]) for another in draw.sample(others, draw.randint(0, 2))]
            words = subject.answer(one)
            request = subject.ask_for_input(subject.inputs, worse, words, chat=False)
            rows.append({"request": request.messages[0]["content"], "reply": f'{one.fields["sentence"]}"'})
        for one in draw.sample(others, ANSWERED // DEMONSTRATION_SETS):
            request = subject.ask_for_output(one)
            rows.append({"request": request.messages[0]["content"], "reply": f" {subject.answer(one)}"})
    draw.shuffle(rows)
    return rows


def teach(out: Path, task: Task) -> Path:
    """The bundled model after these lessons, as a folder."""
    folder, model = out / "lessons", out / "model"
    if model.is_dir():
        return model
    lines = [json.dumps(row) + "\n" for row in lessons(task)]
    write_text(folder / "train.jsonl", "".join(lines[40:]))
    write_text(folder / "score.jsonl", "".join(lines[:40]))
    content = {
        "name": "requests",
        "data": {"train": "train.jsonl", "score": "score.jsonl"},
        "target": "reply",
        "metric": "loss",
        "prompts": {"default": {"template": "{{ request }}", "separator": ""}},
    }
    write_text(folder / "task.yaml", write_yaml(content))
    config = {
        **LEARN,
        "model": "quickstart",
        "tasks": [str(folder / "task.yaml")],
        "output": str(out / "taught"),
    }
    run(config, console=Screen())
    export(out / "taught", "last", model)
    return model


def noise(rows: Sequence[dict[str, Any]]) -> str:
    """What the grammar says of some rows with their labels."""
    true = [(true_sentiment(row["sentence"]), row["label"]) for row in rows]
    known = [(gold, label) for gold, label in true if gold is not None]
    wrong = sum(gold != label for gold, label in known)
    return (
        f"{len(known):,} of {len(rows):,} are sentences of the grammar, and {wrong:,} of these "
        f"({wrong / max(1, len(known)):.0%}) have the wrong label"
    )


def judged(name: str, folder: Path, model: Path) -> str:
    """A variant's section: its scores, and what the grammar says of its labels."""
    found = measure(str(model), TASK, folder, {**SETTINGS, **VARIANTS[name]}, demonstrations=3)
    candidates = [json.loads(line) for line in (folder / "candidates.jsonl").open(encoding="utf-8")]
    taken = [one for one in candidates if one["input"] is not None]
    answered = [one for one in taken if one["label"] is not None]
    kinds = {
        "Inputs with the label that was asked for": [_row(one, one["asked_label"]) for one in taken],
        "Inputs with the most consistent answer": [_row(one, one["label"]) for one in answered],
        "Rows": [_row(one, one["label"]) for one in answered if one["dropped"] is None],
    }
    changed = (
        ", ".join(f"`{key}={value}`" for key, value in VARIANTS[name].items()) or "rounds as in the paper"
    )
    lines = [f"- {kind}: {noise(rows)}" for kind, rows in kinds.items()]
    return in_words(f"{TASK}, {changed}", found) + "\n".join(lines) + "\n"


def main() -> None:
    """Teach, synthesize, train, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--write", action="store_true", help="write docs/synthesis.md")
    given = parser.parse_args()
    [task] = load_tasks([TASK], None)
    model = teach(given.out, task)
    sections = [judged(name, given.out / name, model) for name in VARIANTS]
    print("\n".join(sections))
    if given.write:
        write(sections, "bundled")


def _row(candidate: dict[str, Any], label: str) -> dict[str, Any]:
    return {"sentence": candidate["input"], "label": label}


if __name__ == "__main__":
    main()
