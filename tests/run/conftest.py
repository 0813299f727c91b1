"""Runs of the tiny model: how to start one, and what makes two of them equal."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

import forgetmenot.run
from forgetmenot.run import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> None:
    """Accelerate collects garbage after each stage; walking all that was imported takes half a tiny run."""
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


def _results(run: Run) -> bytes:
    return (run.path / "results.json").read_bytes()
