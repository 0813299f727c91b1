"""The cost of a cell of the score matrix as the number of tasks grows.

    python -m benchmarks.growth --data-dir DATA --model MODEL [--tasks 4 8 16]

SST-2 is cut into tasks of like size and text, so that nothing but their number T grows, and one run learns
them all: T + 1 rows of T cells. "Host" is the part of scoring that is not the model's own call: laying out
packs, masks, reading off answers, metrics, and the files of predictions. The first row lays out the packs
that the later ones use again; "the others" are their median, with the least and the most.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

import forgetmenot
from benchmarks.around import adding
from benchmarks.table import machine
from forgetmenot.engine import forward
from forgetmenot.engine.mask import attention_mask
from forgetmenot.prompting import choose_prompt
from forgetmenot.runs.loop import Loop
from forgetmenot.tasks import Example, Task, load_tasks


@dataclass(frozen=True)
class ScoredRow:
    """Seconds that scoring one row of the matrix took, and how many of them were the model's."""

    cells: int
    seconds: float
    model: float

    @property
    def per_cell(self) -> float:
        """Milliseconds for each cell."""
        return 1000 * self.seconds / self.cells

    @property
    def host(self) -> float:
        """The share that is not the model's."""
        return 1 - self.model / self.seconds


def main() -> None:
    """Run once for each number of tasks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--train", type=int, default=32, help="examples of each task that are learned")
    parser.add_argument("--score", type=int, default=200, help="examples of each task that are scored")
    given = parser.parse_args()
    [whole] = load_tasks(["sst2"], given.data_dir)
    table = Table("T", "cells", "first row: ms a cell", "the others: ms a cell", "least–most", "host")
    table.title = f"{Path(given.model).name}, {given.score} examples a cell; {machine(torch.device('cpu'))}"
    for count in given.tasks:
        with tempfile.TemporaryDirectory() as folder:
            tasks = write_tasks(whole, count, given.train, given.score, Path(folder))
            first, *others = score_matrix(given.model, tasks, Path(folder) / "run")
        costs = [row.per_cell for row in others]
        table.add_row(
            f"{count}",
            f"{count * (count + 1)}",
            f"{first.per_cell:.1f}",
            f"{median(costs):.1f}",
            f"{min(costs):.1f}–{max(costs):.1f}",
            f"{median(row.host for row in others):.1%}",
        )
    Console(width=110).print(table)


def write_tasks(whole: Task, count: int, train: int, score: int, folder: Path) -> list[Path]:
    """Cut a task's training examples into so many tasks, each a YAML file with its rows beside it."""
    prompt = choose_prompt(whole, "default")
    size, paths = train + score, []
    for k in range(count):
        name, part = f"part-{k + 1:02}", whole.train[k * size : (k + 1) * size]
        for split, examples in (("train", part[:train]), ("score", part[train:])):
            (folder / f"{name}-{split}.jsonl").write_text(_lines(examples), encoding="utf-8")
        file = {
            "name": name,
            "data": {"train": f"{name}-train.jsonl", "score": f"{name}-score.jsonl"},
            "label": "label",
            "prompts": {"default": {"template": prompt.template, "choices": dict(prompt.choices)}},
        }
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(json.dumps(file), encoding="utf-8")  # JSON is YAML
    return paths


def score_matrix(model: str, tasks: Sequence[Path], output: Path) -> list[ScoredRow]:
    """Run the tasks one after another, and watch the scoring of every row."""
    config = {
        "model": model,
        "tasks": [str(path) for path in tasks],
        "checkpoints": "none",
        "output": str(output),
    }
    with watched(len(tasks)) as rows:
        forgetmenot.run(config, fresh=True)
    return rows


@contextmanager
def watched(cells: int) -> Iterator[list[ScoredRow]]:
    """The rows that are scored inside the block, as they come."""
    rows: list[ScoredRow] = []
    spent: dict[str, float] = defaultdict(float)
    score = Loop._score

    def row(*given: Any) -> float:
        spent.clear()
        seconds = score(*given)
        model = spent["calls"] - spent["masks"]  # made inside the calls, and the host's
        rows.append(ScoredRow(cells, seconds, model))
        return seconds

    with (
        patch.object(Loop, "_score", row),
        patch.object(forward, "_run", adding(spent, "calls", forward._run)),
        patch.object(forward, "attention_mask", adding(spent, "masks", attention_mask)),
    ):
        yield rows


def _lines(examples: Sequence[Example]) -> str:
    return "".join(json.dumps({**one.fields, "label": one.label}) + "\n" for one in examples)


if __name__ == "__main__":
    main()
