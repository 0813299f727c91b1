"""Run directories with chosen answers, for the tests of comparisons."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.metrics import Answers, MatrixRow, ScoreMatrix, noise_floor, summarize
from forgetmenot.record.layout import PREDICTIONS, stage_folder
from forgetmenot.record.predictions import Predictions, write_predictions

Right = Mapping[str, np.ndarray[Any, Any]]


def write_answers(
    folder: Path,
    right: Right,
    *,
    order: Sequence[str] | None = None,
    model: str = "owner/alpha",
    parameters: int = 1000,
    first_example: int = 0,
) -> Path:
    """Write what a comparison reads of a run, from which examples were right after each stage.

    Args:
        folder: The run's directory.
        right: Task to booleans [stages, n]; the base is stage 0.
        order: The tasks in the order learned; that of `right` unless given.
        model: Its name.
        parameters: How many it has.
        first_example: The number of the first example, so that runs can be of different ones.
    """
    tasks = list(right)
    order = list(order or tasks)
    stages = [
        MatrixRow("00-base"),
        *(MatrixRow(f"{i:02d}-{task}", (task,)) for i, task in enumerate(order, 1)),
    ]
    n = len(right[tasks[0]][0])
    gold = np.random.default_rng(1).integers(0, 2, n)
    columns = {
        task: Answers("accuracy", gold, [np.where(row, gold, 1 - gold) for row in rows])
        for task, rows in right.items()
    }
    matrix = np.array([[right[task][i].mean() for task in tasks] for i in range(len(stages))])
    results = {
        "version": 1,
        "model": model,
        "method": "sequential",
        "seed": 0,
        "tasks": tasks,
        "stages": [{"name": s.name, "trains_on": list(s.trains_on), "follows": True} for s in stages],
        "matrix": matrix.tolist(),
        "metrics": dict.fromkeys(tasks, "accuracy"),
        "majority": dict.fromkeys(tasks, 0.5),
        "not_learned": [task for i, task in enumerate(order, 1) if right[task][i].mean() <= 0.5],
        "summary": summarize(
            ScoreMatrix(tuple(tasks), tuple(stages), matrix), dict.fromkeys(tasks, "accuracy")
        ).to_json(),
        "noise_floor": noise_floor(stages, columns, permutations=20),
        "cost": {"parameters": parameters},
    }
    for i, stage in enumerate(stages):
        path = stage_folder(folder, stage.name) / PREDICTIONS
        path.parent.mkdir(parents=True)
        answers = {
            task: Predictions(
                [f"score:{k + first_example}" for k in range(n)],
                ["yes" if one else "no" for one in gold],
                ["yes" if one else "no" for one in columns[task].predicted[i]],
                [[-1.0, -2.0] for _ in range(n)],
                labels=("no", "yes"),
            )
            for task in tasks
        }
        write_predictions(path, answers)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def forgetful(seed: int, learned: float = 0.9, kept: float = 0.6, n: int = 200, tasks: str = "ab") -> Right:
    """What a model that learns and forgets gets right: before its stage half, then `learned`, then `kept`."""
    draw = np.random.default_rng(seed)
    levels = {
        task: [0.5] * (i + 1) + [learned] + [kept] * (len(tasks) - 1 - i) for i, task in enumerate(tasks)
    }
    return {task: np.stack([draw.random(n) < share for share in shares]) for task, shares in levels.items()}


def identity_gap(summary: Mapping[str, Any]) -> float:
    """How far a run is from mean R[T] = mean R[0] + (ΣLearning − ΣForgetting)/T: 0 but for rounding."""
    haque = summary["haque"]
    moved = (haque["learning_sum"] - haque["forgetting_sum"]) / len(summary["over"])
    return float(haque["final_mean"] - haque["pretrained_mean"] - moved)
