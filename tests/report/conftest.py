"""A synthetic run directory: drawn predictions, from which every number of the files follows."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetmenot.metrics import MatrixRow
from forgetmenot.record.files import write_json
from forgetmenot.record.layout import (
    BASE,
    CONFIG,
    ENVIRONMENT,
    RESULTS,
    TIMING,
    TRAINING,
    stage_folder,
)
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import Cost
from tests.record.written_runs import asked, write_results

GLUE = ("sst2", "mrpc", "cola", "mnli")
LABELS = {
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
}
TEXTS = (
    "a gorgeous , witty , seductive movie that lingers long after the lights have come up",
    "the plot is so thin that even its own characters seem to be looking for the exit",
    "it 's a charming and often affecting journey",
    "Premise: The new rights are nice enough.\nHypothesis: Everyone really likes the newest benefits.",
    "no movement , no yuks , not much of anything",
    "Sentence 1: The company said profit rose 12 percent.\nSentence 2: Profit went up by 12 percent.",
)
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run directory and returns its path."""

    def make(method: str = "sequential", tasks: Sequence[str] = GLUE, **changes: Any) -> Path:
        return write_run(tmp_path / f"{method}-{len(tasks)}", method, tasks, **changes)

    return make


def write_run(
    run_dir: Path,
    method: str,
    tasks: Sequence[str],
    *,
    also_score: Sequence[str] = (),
    texts: Sequence[str] = (),
    missing: Sequence[tuple[int, str]] = (),
    never_learned: Sequence[str] = (),
    text: str | None = None,
    n: int = 400,
    results_only: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run of `method` over `tasks`, the same files for the same arguments.

    Args:
        run_dir: Where to write.
        method: sequential, joint or single.
        tasks: What is trained, in order.
        also_score: Columns that are never trained.
        texts: The same, scored by the loss of texts, which is about 3 nats and rises by 1 with each stage.
        missing: Cells (stage index, task) without a score.
        never_learned: Tasks that stay at their majority class.
        text: What every example says, in place of ordinary sentences.
        n: Examples per task.
        results_only: Keys of results.json to replace; a key set to None is left out.
    """
    columns = [*tasks, *also_score]
    rows = _rows(method, tasks)
    generator = np.random.default_rng(7)
    asked_tasks = []
    for task in columns:
        right = _right(generator, task, rows, method, never_learned, n)
        gold = generator.integers(0, 2, n)
        answers = [
            None if (i, task) in missing else _answers(generator, task, gold, right[i], text)
            for i in range(len(rows))
        ]
        metrics = ("accuracy", "f1") if task == "mrpc" else ("accuracy",)
        asked_tasks.append(asked(task, metrics, answers))
    for task in texts:
        asked_tasks.append(asked(task, ("loss",), [_texts(generator, 3.0 + i, n) for i in range(len(rows))]))
    results: dict[str, Any] = {
        **write_results(run_dir, rows, asked_tasks, described={"method": method}, cost=_cost(rows))
    }
    kept = {key: value for key, value in {**results, **(results_only or {})}.items() if value is not None}
    write_json(run_dir / RESULTS, kept)
    for i, row in enumerate(rows):
        if row.trains_on:
            (stage_folder(run_dir, row.name) / TRAINING).write_text(_training(generator, 60 + 20 * i))
    (run_dir / CONFIG).write_text(f"model: base-4m\nmethod: {{name: {method}}}\nseed: 0\n")
    hardware = {"cpu": "x86_64", "cores": 2}
    write_json(
        run_dir / ENVIRONMENT,
        {"python": "3.11.9", "torch": "2.13.0", "learning_rate": 0.0002, "hardware": hardware},
    )
    write_json(run_dir / TIMING, {"train_s": [12.5] * (len(rows) - 1), "eval_s": [3.25] * len(rows)})
    return run_dir


def _rows(method: str, tasks: Sequence[str]) -> list[MatrixRow]:
    if method == "joint":
        return [MatrixRow(BASE), MatrixRow("01-joint", tuple(tasks))]
    follows = method != "single"
    return [
        MatrixRow(BASE),
        *(MatrixRow(f"{i:02d}-{task}", (task,), follows) for i, task in enumerate(tasks, start=1)),
    ]


def _cost(rows: Sequence[MatrixRow]) -> Cost:
    last = rows[-1].name
    return Cost(
        positions={BASE: {"scoring": {"computed": 345_678, "without_sharing": 1_234_567}}},
        memory_kept={last: 0},
        parameters_added={last: 40_960},
        parameters=4_000_000,
        past_data=False,
    )


def _right(
    generator: np.random.Generator,
    task: str,
    rows: Sequence[MatrixRow],
    method: str,
    never_learned: Sequence[str],
    n: int,
) -> list[np.ndarray[Any, Any]]:
    """Which examples are right after each stage: an example has its own difficulty, a stage its own skill."""
    difficulty = generator.normal(size=n)
    top, skill, found = generator.uniform(0.9, 1.7), 0.05, []
    for row in rows:
        if task in row.trains_on:
            skill = 0.05 if task in never_learned else top
        elif not row.follows:
            skill = 0.05
        elif skill > 0.05 and method == "sequential":
            skill = max(0.05, skill * generator.uniform(0.3, 0.95))
        found.append(skill + 0.45 * generator.normal(size=n) > difficulty)
    return found


def _answers(
    generator: np.random.Generator, task: str, gold: Any, right: Any, text: str | None
) -> Predictions:
    labels = LABELS.get(task, ("no", "yes"))
    n = len(gold)
    said = [int(gold[k]) if right[k] else 1 - int(gold[k]) for k in range(n)]
    log_likelihoods: list[list[float] | None] = []
    for k in range(n):
        row = generator.uniform(-6, -3, len(labels))
        row[said[k]] = generator.uniform(-2.5, -0.1)
        log_likelihoods.append(row.tolist())
    return Predictions(
        [f"score-{k}" for k in range(n)],
        [labels[int(k)] for k in gold],
        [labels[k] for k in said],
        log_likelihoods,
        prompt_text=[text or TEXTS[(k + len(task)) % len(TEXTS)] for k in range(n)],
        labels=labels,
    )


def _texts(generator: np.random.Generator, loss: float, n: int) -> Predictions:
    losses = loss + 0.1 * generator.standard_normal(n)
    return Predictions(
        [f"score-{k}" for k in range(n)],
        [""] * n,
        [None] * n,
        [[-20.0 * float(one)] for one in losses],
        [20] * n,
        prompt_text=[TEXTS[k % len(TEXTS)] for k in range(n)],
    )


def _training(generator: np.random.Generator, steps: int) -> str:
    lines = [
        json.dumps(
            {
                "step": step,
                "loss": 0.35 + 1.9 * math.exp(-step / 14) + float(generator.uniform(0, 0.12)),
                "learning_rate": 2e-4,
                "tokens": 2048 * step,
                "examples": 32 * step,
            }
        )
        for step in range(1, steps + 1)
    ]
    return "\n".join(lines) + "\n"
