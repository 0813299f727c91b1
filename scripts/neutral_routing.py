"""Whether the router of `adapter-per-task` knows tasks by their texts, or only by the words of their prompts.

    python -m scripts.neutral_routing MODEL OUT.json --tasks glue4 --data-dir D

The router sends a prompt to the task with the nearest centroid of hidden states. All prompts of a task share
its instruction, so it may be this that is recognized. Here it routes the same examples by three texts: the
task's own prompt (what a run does), one neutral template for all tasks (`Text: …`, the control), and
PromptEOL's one-word prompt around the same fields, whose last state is a sentence embedding.
"""

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.table import Table

from forgetmenot.config import load_config
from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.vectors import prompts_of
from forgetmenot.engine.learner import Learner
from forgetmenot.methods.shared.routing import Routing, RoutingOptions
from forgetmenot.metrics.resampling import wilson
from forgetmenot.prompting import Encoder, TokenSequence, choose_prompt
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.record.files import write_json
from forgetmenot.report.screen import Screen
from forgetmenot.report.wording import span
from forgetmenot.runs.plan import data_folder
from forgetmenot.runs.session import open_session
from forgetmenot.tasks import Example, Task, load_tasks

WAYS = ("own prompts", "one neutral template", "one-word prompt")
Ids = tuple[int, ...]


class PlainRouting(Routing):
    """The router on a model without adapters."""

    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """As it is."""
        return nullcontext()


def main() -> None:
    """Route, and print the share that was sent to its own task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default="glue4")
    parser.add_argument("--data-dir")
    parser.add_argument("--train", type=int, default=128, help="prompts of each task for its centroid")
    parser.add_argument("--score", type=int, default=64, help="prompts of each task that are routed")
    given = parser.parse_args()
    named = {"model": given.model, "tasks": given.tasks, "data_dir": given.data_dir}
    config = load_config(None, {key: value for key, value in named.items() if value is not None})
    tasks = load_tasks(config.tasks, data_folder(config))
    session = open_session(config)
    learner = session.learner
    looked_at = prompts_of(learner, texts_of(tasks[0].score[:4]), EmbeddingSettings())
    session.examine([TokenSequence((*ids, 0), len(ids)) for ids in looked_at], writes=False)
    found = {way: routed(learner, tasks, way, given.train, given.score) for way in WAYS}
    write_json(
        given.out, {"model": config.model.title, "tasks": [task.name for task in tasks], "ways": found}
    )
    table = Table("text", "sent to its own task", "95 % interval", "n", box=None)
    for way, one in found.items():
        table.add_row(way, f"{one['share']:.3f}", span(one["interval"]), str(one["n"]))
    Screen().print(table)


def routed(learner: Learner, tasks: Sequence[Task], way: str, train: int, score: int) -> dict[str, Any]:
    """The share of examples that are sent to their own task, and where those of each task went."""
    layers = learner.model.config.get_text_config().num_hidden_layers
    method = PlainRouting(RoutingOptions(layer=layers if way == WAYS[2] else "middle"))
    data = {task.name: prompts(learner, task, spaced(task.train, train), way) for task in tasks}
    shown: Any = SimpleNamespace(
        data={name: [SimpleNamespace(prompt=ids) for ids in some] for name, some in data.items()}
    )
    method.begin(learner, shown)
    sent: dict[str, dict[str, int]] = {}
    for task in tasks:
        chosen = method.route(learner, prompts(learner, task, spaced(task.score, score), way))
        assert chosen is not None
        sent[task.name] = {name: list(chosen).count(name) for name in data}
    right, n = sum(sent[name][name] for name in sent), sum(sum(one.values()) for one in sent.values())
    return {"share": right / n, "interval": list(wilson(right, n)), "n": n, "sent": sent}


def prompts(learner: Learner, task: Task, examples: Sequence[Example], way: str) -> list[Ids]:
    """What the model reads of examples."""
    if way == WAYS[0]:
        encoder = Encoder(
            task, choose_prompt(task, "default"), learner.tokenizer, learner.max_positions or 1024
        )
        return [one.prompt for one in encoder.encode_all(examples)[:]]
    if way == WAYS[1]:
        return tokens_of(learner.tokenizer).plain([f"Text: {text}" for text in texts_of(examples)])
    return prompts_of(learner, texts_of(examples), EmbeddingSettings())


def texts_of(examples: Sequence[Example]) -> list[str]:
    """The fields of examples, one behind the other."""
    return [" ".join(str(value).strip() for value in one.fields.values()) for one in examples]


def spaced(examples: Sequence[Example], count: int) -> list[Example]:
    """So many examples, evenly spaced."""
    rows = np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(np.int64)
    return [examples[k] for k in rows]


if __name__ == "__main__":
    main()
