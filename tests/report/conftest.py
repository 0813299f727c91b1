"""A synthetic run directory: drawn predictions, from which every number of the files follows."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from forgetmenot.record.layout import PREDICTIONS
from forgetmenot.record.predictions import Predictions, write_predictions

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
        missing: Cells (stage index, task) without a score.
        never_learned: Tasks that stay at their majority class.
        text: What every example says, in place of ordinary sentences.
        n: Examples per task.
        results_only: Keys of results.json to replace; a key set to None is left out.
    """
    columns = [*tasks, *also_score]
    stages = _stages(method, tasks)
    generator = np.random.default_rng(7)
    right = {task: _right(generator, task, stages, method, never_learned, n) for task in columns}
    gold = {task: generator.integers(0, 2, n) for task in columns}
    matrix = [
        [None if (i, task) in missing else float(right[task][i].mean()) for task in columns]
        for i in range(len(stages))
    ]
    results = _results(method, stages, tasks, columns, matrix, right, never_learned, missing)
    for key, value in (results_only or {}).items():
        results[key] = value
    run_dir.mkdir(parents=True)
    kept = {key: value for key, value in results.items() if value is not None}
    (run_dir / "results.json").write_text(json.dumps(kept))
    for i, stage in enumerate(stages):
        folder = run_dir / "stages" / stage["name"]
        folder.mkdir(parents=True)
        answers = {
            task: _answers(generator, task, gold[task], right[task][i], text)
            for task in columns
            if (i, task) not in missing
        }
        write_predictions(folder / PREDICTIONS, answers)
        if stage["trains_on"]:
            (folder / "training.jsonl").write_text(_training(generator, 60 + 20 * i))
    (run_dir / "config.yaml").write_text(f"model: base-4m\nmethod: {{name: {method}}}\nseed: 0\n")
    (run_dir / "environment.json").write_text(
        json.dumps(
            {
                "python": "3.11.9",
                "torch": "2.13.0",
                "learning_rate": 0.0002,
                "hardware": {"cpu": "x86_64", "cores": 2},
            }
        )
    )
    (run_dir / "timing.json").write_text(
        json.dumps({"train_s": [12.5] * (len(stages) - 1), "eval_s": [3.25] * len(stages)})
    )
    return run_dir


def _stages(method: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
    base = {"name": "00-base", "trains_on": [], "follows": True}
    if method == "joint":
        return [base, {"name": "01-joint", "trains_on": list(tasks), "follows": True}]
    return [base] + [
        {"name": f"{i:02d}-{task}", "trains_on": [task], "follows": method != "single"}
        for i, task in enumerate(tasks, start=1)
    ]


def _right(
    generator: np.random.Generator,
    task: str,
    stages: Sequence[Mapping[str, Any]],
    method: str,
    never_learned: Sequence[str],
    n: int,
) -> list[np.ndarray[Any, Any]]:
    """Which examples are right after each stage: an example has its own difficulty, a stage its own skill."""
    difficulty = generator.normal(size=n)
    top, skill, rows = generator.uniform(0.9, 1.7), 0.05, []
    for stage in stages:
        if task in stage["trains_on"]:
            skill = 0.05 if task in never_learned else top
        elif not stage["follows"]:
            skill = 0.05
        elif skill > 0.05 and method == "sequential":
            skill = max(0.05, skill * generator.uniform(0.3, 0.95))
        rows.append(skill + 0.45 * generator.normal(size=n) > difficulty)
    return rows


def _results(
    method: str,
    stages: Sequence[Mapping[str, Any]],
    tasks: Sequence[str],
    columns: Sequence[str],
    matrix: list[list[float | None]],
    right: Mapping[str, Any],
    never_learned: Sequence[str],
    missing: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    n = len(right[columns[0]][0])
    intervals = [[_interval(value, n) for value in row] for row in matrix]
    own = {task: next(i for i, stage in enumerate(stages) if task in stage["trains_on"]) for task in tasks}
    last = len(stages) - 1
    tested = [task for task in tasks if own[task] < last and method == "sequential"]
    learned = [float(right[task][own[task]].mean()) for task in tasks]
    end = [float(right[task][last].mean()) for task in tasks]
    base = [float(right[task][0].mean()) for task in tasks]
    best = [max(float(row.mean()) for row in right[task]) for task in tasks]
    drops = [b - e for b, e in zip(best, end, strict=True)]
    gains = [b - s for b, s in zip(best, base, strict=True)]
    count = len(tasks)
    reasons: dict[str, str] = {}
    summary: dict[str, Any] = {
        "average_performance": sum(end) / count,
        "backward_transfer": None,
        "forward_transfer": None,
        "forgetting": None,
        "learning_accuracy": sum(learned) / count,
    }
    if tested:
        summary["backward_transfer"] = sum(e - s for e, s in zip(end, learned, strict=True)) / (count - 1)
        summary["forward_transfer"] = 0.004
        summary["forgetting"] = sum(drops[:-1]) / (count - 1)
    else:
        for name in ("backward_transfer", "forward_transfer", "forgetting"):
            reasons[name] = "Needs at least two tasks that are learned one after the other."
    haque_mean = sum(drops) / count
    haque = {
        "forgetting": dict(zip(tasks, drops, strict=True)),
        "learning": dict(zip(tasks, gains, strict=True)),
        "forgetting_sum": sum(drops),
        "forgetting_mean": haque_mean,
        "learning_sum": sum(gains),
        "learning_mean": sum(gains) / count,
        "pretrained_mean": sum(base) / count,
        "final_mean": sum(end) / count,
        "stage_mean": 0.61,
        "diagonal_mean": sum(learned) / count,
    }
    f1 = [
        [
            None if value is None or task != "mrpc" else value * 0.97
            for task, value in zip(columns, row, strict=True)
        ]
        for row in matrix
    ]
    common = {
        "version": {"accuracy": 1},
        "prompt": dict.fromkeys(columns, "default"),
        "scoring": "likelihood",
        "n": dict.fromkeys(columns, n),
    }
    gaps = [
        {"stage": stages[i]["name"], "task": task, "reason": f"Out of memory while scoring {task}."}
        for i, task in missing
    ]
    return {
        "version": 1,
        "model": "base-4m",
        "method": method,
        "adapter": "lora, rank 8",
        "seed": 0,
        "tasks": list(columns),
        "stages": list(stages),
        "matrix": matrix,
        "metrics": dict.fromkeys(columns, "accuracy"),
        "majority": dict.fromkeys(columns, 0.52),
        "not_learned": list(never_learned),
        "summary": {**summary, "haque": haque, "over": list(tasks), "reasons": reasons},
        "intervals": {
            "matrix": intervals,
            "summary": {
                name: [value - 0.012, value + 0.012] for name, value in summary.items() if value is not None
            }
            | {"haque_forgetting_mean": [haque_mean - 0.02, haque_mean + 0.02]},
        },
        "noise_floor": {
            "forgetting": 0.014,
            "haque_forgetting_mean": 0.017,
            "haque_forgetting_sum": 0.068,
            "haque_learning_mean": 0.016,
            "haque_learning_sum": 0.064,
        },
        "significance": _significance(tested, own, last, right),
        "readings": [
            {**common, "metric": "accuracy", "matrix": matrix, "intervals": intervals, "missing": gaps},
            {**common, "metric": "f1", "matrix": f1, "intervals": [], "missing": []},
        ],
        "probes": {},
        "cost": {
            "positions": {"00-base": {"scoring": {"computed": 345_678, "without_sharing": 1_234_567}}},
            "memory_kept": {f"{last:02d}-last": 0},
            "parameters_added": {f"{last:02d}-last": 40_960},
            "parameters": 4_000_000,
            "past_data": False,
        },
    }


def _significance(
    tested: Sequence[str], own: Mapping[str, int], last: int, right: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Exact McNemar per task and Holm over the tasks."""
    tests: dict[str, dict[str, Any]] = {}
    for task in tested:
        before, after = right[task][own[task]], right[task][last]
        forgotten, gained, n = int((before & ~after).sum()), int((after & ~before).sum()), len(before)
        difference = (forgotten - gained) / n
        half = 1.96 * math.sqrt(forgotten + gained) / n
        p = float(binomtest(forgotten, forgotten + gained).pvalue) if forgotten + gained else 1.0
        tests[task] = {
            "difference": difference,
            "interval": [difference - half, difference + half],
            "p": p,
            "test": "mcnemar",
            "forgotten": forgotten,
            "gained": gained,
            "n": n,
        }
    highest = 0.0
    for rank, task in enumerate(sorted(tests, key=lambda name: float(tests[name]["p"]))):
        highest = max(highest, min(1.0, float(tests[task]["p"]) * (len(tests) - rank)))
        tests[task]["p_holm"] = highest
    return tests


def _interval(value: float | None, n: int) -> list[float] | None:
    if value is None:
        return None
    half = 1.96 * math.sqrt(value * (1 - value) / n)
    return [value - half, value + half]


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
