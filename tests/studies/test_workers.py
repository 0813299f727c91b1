"""How many runs of a study go on at a time where nobody says."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console

import forgetmenot
from forgetmenot.config import RunConfig
from forgetmenot.models.settings import ModelSettings
from forgetmenot.studies import study as study_module
from forgetmenot.studies.workers import ROOM, default_workers, weights_size

QUICK = RunConfig(model=ModelSettings(name="quickstart"), tasks=["qs-sentiment"])


def _of(path: Path) -> RunConfig:
    return QUICK.model_copy(update={"model": ModelSettings(name=str(path))})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what the machine has: machine(accelerator=False, free=1000)."""

    def set_(accelerator: bool = False, free: int = 10**12) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))

    set_()
    return set_


@pytest.mark.parametrize(
    ("threads", "cores", "expected"), [(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (1, 64, 2), (3, 5, 1)]
)
def test_two_where_each_has_its_threads(threads: int, cores: int, expected: int) -> None:
    assert default_workers([QUICK], threads, cores)[0] == expected


def test_one_where_there_is_an_accelerator(machine: Callable[..., None]) -> None:
    machine(accelerator=True)
    assert default_workers([QUICK], 1, 2) == (1, "the machine has an accelerator")


def test_one_where_two_of_the_largest_model_might_not_fit(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    for name, size in (("small", 10), ("large", 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(size))
    runs = [_of(tmp_path / "small"), _of(tmp_path / "large")]
    machine(free=2 * ROOM * 1000)
    assert default_workers(runs, 1, 2)[0] == 2
    machine(free=2 * ROOM * 1000 - 1)
    assert default_workers(runs, 1, 2)[0] == 1
    assert default_workers(runs[:1], 1, 2)[0] == 2, "the small one alone fits"


def test_one_while_a_model_is_still_to_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = tmp_path / "model.safetensors"
    there.write_bytes(bytes(7))
    cached: dict[str, Any] = {"owner/here": str(there), "owner/elsewhere": None}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, *_, **__: cached[name])
    assert weights_size(ModelSettings(name="owner/here")) == 7
    assert default_workers([_of(Path("owner/here"))], 1, 2)[0] == 2
    assert default_workers([_of(Path("owner/elsewhere")), QUICK], 1, 2)[0] == 1


def test_weights_are_counted_in_all_layouts(tmp_path: Path) -> None:
    for name in ("model-1-of-2.safetensors", "model-2-of-2.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(bytes(5))
    assert weights_size(ModelSettings(name=str(tmp_path))) == 10
    (tmp_path / "a.gguf").write_bytes(bytes(3))
    assert weights_size(ModelSettings(name=str(tmp_path), gguf_file="a.gguf")) == 12, "four bits become 16"
    assert weights_size(ModelSettings(name=str(tmp_path / "a.gguf"))) == 12
    assert weights_size(ModelSettings(name=str(tmp_path))) == 10, "what is not loaded does not count"
    assert weights_size(ModelSettings(name=str(tmp_path / "nothing" / "yet"))) is None


@pytest.mark.parametrize("given", [None, 1])
def test_a_study_says_what_it_took_and_takes_what_it_is_told(
    given: int | None,
    tiny: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    def nowhere(resources: Any, workers: int) -> Any:
        asked.append(workers)
        raise KeyboardInterrupt

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(study_module, "this_machine", nowhere)
    monkeypatch.setattr(study_module, "cores_here", lambda: 4)
    config = {"base": dict(tiny), "grid": {"seed": [0, 1]}, "output": str(tmp_path / "study")}
    with (tmp_path / "said").open("w") as file, pytest.raises(KeyboardInterrupt):
        forgetmenot.study(config, workers=given, console=Console(file=file, width=200))
    said = (tmp_path / "said").read_text()
    assert asked == [given or 2]
    assert ("Runs at a time: 2 (4 cores, no accelerator; --workers N" in said) == (given is None)
