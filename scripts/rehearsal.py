"""What was rehearsed in the runs of a study, and what it saved: a table for docs/rehearsal.md.

    fmn study recipes/rehearsal.yaml --workers 2 …
    python -m scripts.rehearsal studies/rehearsal-*

For each method: how much was rehearsed in each stage, whether its labels are right, how various it is, how
much of it stands in the training data, and what the runs came to. Whether a label is right is asked of a
TF-IDF classifier that has learned the task's training rows, without those that the run trained on. It errs
too: how often it agrees with the labels of real rows is what `replay` shows.
"""

import argparse
import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.metrics import spread
from forgetmenot.prompting.texts import as_text
from forgetmenot.receipts.tfidf import TfidfClassifier
from forgetmenot.record.layout import CONFIG, REHEARSED, RESULTS, STAGES
from forgetmenot.report.wording import NONE, number, setting
from forgetmenot.runs.plan import make_plan, training_rows

RUN_OF_WORDS = 8
"""A written input that has so many words in a row in common with a training row is a near copy of it."""


@dataclass
class Known:
    """A task's training rows, as the texts that its prompts have around nothing.

    Attributes:
        before: What all prompts begin with.
        after: What all end with.
        texts: What stands between, sorted.
        words: Each label's words.
        classifier: One that has learned those that the run did not train on.
    """

    before: str
    after: str
    texts: Sequence[str]
    words: Sequence[str]
    classifier: TfidfClassifier
    runs: set[tuple[str, ...]] = field(default_factory=set)

    def has(self, body: str) -> bool:
        """Whether a training row is this text, or begins with it: long ones are cut to fit."""
        at = bisect_left(self.texts, body)
        return bool(body) and at < len(self.texts) and self.texts[at].startswith(body)

    def body(self, prompt: str) -> str:
        """What a prompt has of its own."""
        at = prompt.find(self.before.strip())
        inner = prompt[at + len(self.before.strip()) :] if at >= 0 else prompt
        return inner.partition(self.after.strip())[0].strip()


KNOWN: dict[tuple[str, str], Known] = {}


@dataclass
class Rehearsed:
    """What the runs of one method have rehearsed.

    Attributes:
        counts: Of each stage after the first.
        right: For each example whether the classifier agrees.
        bodies: Of each run and task, the inputs.
        copies: For each example whether it is a training row.
        near: For each example whether it is one or has a run of words of one.
    """

    counts: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    bodies: list[list[str]] = field(default_factory=list)
    copies: list[bool] = field(default_factory=list)
    near: list[bool] = field(default_factory=list)


def known(task_name: str, config: RunConfig) -> Known:
    """What a run's task has to hold examples against; the same for all runs on the same rows."""
    about = config.model_dump_json(include={"tasks", "prompt", "data_dir", "training"})
    if (task_name, about) not in KNOWN:
        KNOWN[task_name, about] = _known(task_name, config)
    return KNOWN[task_name, about]


def _known(task_name: str, config: RunConfig) -> Known:
    plan = make_plan(config)
    (task,) = [one for one in plan.trained if one.name == task_name]
    prompt = plan.prompts[task_name]
    rows = [as_text(task, prompt, one, one.fields) for one in task.train]
    prompts = [row.whole[0] if not row.turns else row.turns[-1]["content"] for row in rows]
    before = _common(prompts)
    after = _common([one[::-1] for one in prompts])[::-1]
    texts = [one[len(before) : len(one) - len(after)].strip() for one in prompts]
    used = {one.id for one in training_rows(config, task)}
    others = [(text, one) for text, one in zip(texts, task.train, strict=True) if one.id not in used]
    classifier = TfidfClassifier()
    golds = np.array([task.labels.index(str(one.label)) for _, one in others])
    classifier.fit([(text,) for text, _ in others], golds, len(task.labels))
    found = Known(before, after, sorted(texts), [prompt.choices[one] for one in task.labels], classifier)
    for text in texts:
        found.runs.update(runs_of_words(text))
    return found


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with: what the least and the greatest do."""
    least, greatest = min(texts), max(texts)
    return next((least[:k] for k, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), least)


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    """All runs of `RUN_OF_WORDS` words of a text."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[k : k + RUN_OF_WORDS]) for k in range(len(words) - RUN_OF_WORDS + 1)}


def distinct(bodies: Sequence[str]) -> float:
    """Distinct-2: different pairs of neighbouring words, divided by all of them (Li et al. 2016)."""
    pairs = [pair for body in bodies for pair in pairwise(re.findall(r"\w+", body.lower()))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def take_in(found: Rehearsed, run: Path) -> None:
    """Add what a run has rehearsed."""
    config = read_resolved(run / CONFIG)
    for stage in sorted((run / STAGES).iterdir())[2:]:
        path = stage / REHEARSED
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        found.counts.append(len(rows))
        by_task: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_task.setdefault(row["task"], []).append(row)
        for task, some in by_task.items():
            about = known(task, config)
            bodies = [about.body(row["prompt"]) for row in some]
            said = about.classifier.scores([(body,) for body in bodies]).argmax(1)
            found.bodies.append(bodies)
            for row, body, place in zip(some, bodies, said, strict=True):
                found.right.append(row["answer"].strip().startswith(about.words[int(place)].strip()))
                found.copies.append(about.has(body))
                found.near.append(found.copies[-1] or bool(runs_of_words(body) & about.runs))


def share(values: Sequence[bool]) -> str:
    """A share in percent."""
    return f"{np.mean(values):.0%}" if values else NONE


def over_seeds(runs: Sequence[dict[str, Any]], figure: str) -> str:
    """A figure of the summaries: its mean over the seeds and half of its interval."""
    values = [run["summary"][figure] for run in runs if run["summary"][figure] is not None]
    if not values:
        return NONE
    found = spread(values)
    half = "" if found.interval is None else f" ± {(found.interval[1] - found.interval[0]) / 2:.3f}"
    return f"{number(found.mean)}{half}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    folder: Path = parser.parse_args().study / "runs"
    if not folder.is_dir():
        parser.error(f"{folder.parent} holds no runs: begin with fmn study recipes/rehearsal.yaml.")
    groups: dict[str, list[Path]] = {}
    for run in sorted(one for one in folder.iterdir() if (one / RESULTS).is_file()):
        config: RunConfig = read_resolved(run / CONFIG)
        groups.setdefault(setting(config.method.model_dump()), []).append(run)
    columns = ["method", "seeds", "AP", "BWT", "learned", "rehearsed", "label right", "distinct-2", "copies"]
    print(f"| {' | '.join([*columns, 'near copies'])} |\n|{' --- |' * (len(columns) + 1)}")
    for name, paths in groups.items():
        found = Rehearsed()
        for path in paths:
            take_in(found, path)
        results = [json.loads((path / RESULTS).read_text()) for path in paths]
        various = f"{np.mean([distinct(one) for one in found.bodies]):.2f}" if found.bodies else NONE
        cells = [
            f"`{name}`",
            str(len(paths)),
            over_seeds(results, "average_performance"),
            over_seeds(results, "backward_transfer"),
            over_seeds(results, "learning_accuracy"),
            f"{np.mean(found.counts):.0f}" if found.counts else NONE,
            share(found.right),
            various,
            share(found.copies),
            share(found.near),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
