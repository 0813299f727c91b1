"""Fixtures of runs of the tiny model: how to start one, and what makes two of them equal."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import forgetmenot
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
Answers = Callable[[Path, Run, int], None]


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> None:
    """Walking all that was imported takes longer than a tiny run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tiny_llama: Path, tiny_tasks: Mapping[str, Path]) -> dict[str, Any]:
    """The config of a run of three tasks that takes a second, without its output."""
    return {
        "model": str(tiny_llama),
        "tasks": [str(path) for path in tiny_tasks.values()],
        "training.batch_size": 8,
    }


@pytest.fixture
def go(tiny: Mapping[str, Any], tmp_path: Path) -> Go:
    """Run it: go(directory's name, {"dotted.key": value}, fresh=…)."""

    def go(name: str, overrides: Mapping[str, Any] | None = None, *, fresh: bool = False) -> Run:
        config = {**tiny, **(overrides or {}), "output": str(tmp_path / name)}
        return forgetmenot.run(config, fresh=fresh)

    return go


@pytest.fixture(scope="session")
def finished(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run of three tasks; for reading only."""
    return forgetmenot.run({**tiny, "output": str(tmp_path_factory.mktemp("runs") / "finished")})


@pytest.fixture(scope="session")
def same() -> Same:
    """Two runs have the same results.json to the last byte, and the same predictions."""

    def same(one: Run, other: Run) -> None:
        assert _results(one) == _results(other)
        for stage in one.results["stages"]:
            name = f"stages/{stage['name']}/predictions.parquet"
            assert parquet.read_table(one.path / name).equals(parquet.read_table(other.path / name))

    return same


@pytest.fixture(scope="session")
def answers_alone() -> Callable[[Path, Run, int], None]:
    """A model that Transformers loads by itself gives a stage's log-likelihoods, one text at a time."""

    def answers_alone(folder: Path, run: Run, stage: int) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = run.predictions(stage)
        for row in rows[rows["task"] == "colour"].itertuples():
            prompt = f"Word: {str(row.prompt_text).removeprefix('word: ')}\nKind:"
            scores = [_score(model, tokenizer, prompt, f" {label}") for label in ("blue", "red")]
            assert scores == pytest.approx(list(np.asarray(row.log_likelihoods)), abs=1e-4)

    return answers_alone


def _score(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    given, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + answer)["input_ids"]
    assert whole[: len(given)] == given
    with torch.no_grad():
        log_probs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(log_probs[i - 1, whole[i]] for i in range(len(given), len(whole))))


def _results(run: Run) -> bytes:
    return (run.path / "results.json").read_bytes()
