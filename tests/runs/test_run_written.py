"""Runs of the methods that rehearse what the model has written, on a model that can write a little."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]

# A task learned until the model can write it.
LEARNED = {
    "model": "quickstart-small",
    "adapter.kind": "full",
    "training.epochs": 12,
    "training.batch_size": 8,
    "training.learning_rate": 2e-3,
    "training.limit": 30,
    "evaluation.limit": 4,
}
LAMOL = {"name": "lamol", "share": 0.4, "strength": 1.0, "top_k": 3}
SMALL: dict[str, Any] = {"max_output_tokens": 8, "best_of": 3, "outputs": 3}
FOLDER = Path(os.environ.get("FMN_REAL_MODELS", Path.home() / ".cache" / "forgetmenot-models"))
REAL = FOLDER / "smollm2-135m-instruct"


@pytest.fixture
def tasks(make_word_task: Callable[..., Any]) -> list[str]:
    return [str(make_word_task(name)) for name in ("animal", "size")]


def rehearsed(run: Run, stage: str) -> list[dict[str, str]]:
    path = run.path / "stages" / stage / "rehearsed.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def assert_trained_on(run: Run, epochs: int) -> None:
    """What was written stands beside the stage to be read, and is a part of what is trained on."""
    assert rehearsed(run, "01-animal") == []
    rows = rehearsed(run, "02-size")
    assert rows, (run.path / "events.jsonl").read_text()
    assert {row["task"] for row in rows} == {"animal"}
    assert all("Word:" in row["prompt"] and "Kind:" in row["prompt"] for row in rows)
    log = [json.loads(line) for line in (run.path / "stages/02-size/training.jsonl").read_text().splitlines()]
    assert sum(step["examples"] for step in log) == epochs * (30 + len(rows))


@pytest.mark.slow
def test_what_lamol_writes_is_trained_on(go: Go, tasks: list[str], same: Same) -> None:
    config = {**LEARNED, "tasks": tasks, "method": LAMOL}
    run = go("one", config)
    assert_trained_on(run, 12)
    same(run, go("other", config))


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL.is_dir(), reason=f"{REAL} is not on this machine; FMN_REAL_MODELS names its folder"
)
@pytest.mark.parametrize("method", ["ssr", "self-guide-replay"])
def test_a_real_model_writes_examples_of_a_task(go: Go, tasks: list[str], method: str) -> None:
    options = {"synthesis": {**SMALL, "max_input_tokens": 16}} if method == "self-guide-replay" else {}
    run = go(
        "run",
        {
            "model": str(REAL),
            "tasks": tasks,
            "training.limit": 30,
            "training.batch_size": 8,
            "training.learning_rate": 1e-3,
            "evaluation.limit": 4,
            "method": {"name": method, "memory": 4, "candidates": 4, **options},
        },
    )
    assert_trained_on(run, 1)


def test_past_examples_that_are_replayed_can_be_read(go: Go, tiny: Mapping[str, Any]) -> None:
    small = {"evaluation.limit": 4, "training.limit": 8, "tasks": tiny["tasks"][:2]}
    run = go("run", {**small, "method": {"name": "replay", "share": 0.5, "memory": 4}})
    rows = rehearsed(run, "02-colour")
    assert len(rows) == 4
    assert all(row["prompt"].startswith("Word: ") for row in rows)
