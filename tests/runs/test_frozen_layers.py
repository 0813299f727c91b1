"""Runs of which only the upper layers learn: cold, warm, in any order, and where nothing is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.engine.state_files import StateFiles
from forgetmenot.errors import UserError
from forgetmenot.record.cache import FROZEN_LAYERS
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
UPPER = {"evaluation.limit": 8, "training.limit": 16, "adapter.layers": {"top": 1}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted((cache / FROZEN_LAYERS).glob("*.states"))


def identity(run: Run) -> Any:
    return json.loads((run.path / "environment.json").read_text())["identity"]


@pytest.mark.parametrize("adapter", ["continue", "new", "merge", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cold_and_a_warm_run_are_the_same_to_the_bit(
    go: Go, same: Callable[..., None], adapter: str, precision: str, cache: Path, monkeypatch: Any
) -> None:
    settings: dict[str, Any] = (
        {"adapter.kind": "full"} if adapter == "full" else {"adapter.per_stage": adapter}
    )
    settings |= {"training.precision": precision, **UPPER}
    cold = go("cold", settings)
    assert identity(cold)["frozen_states"]
    files = kept(cache)
    assert len(files) == 6, "what is learned and what is scored of three tasks"
    monkeypatch.setattr(StateFiles, "write", lambda *_: pytest.fail("the states are there"))
    warm = go("warm", settings)
    assert kept(cache) == files
    same(cold, warm)


def test_two_seeds_in_both_orders(
    go: Go, same: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {}
    for order in ((0, 1), (1, 0)):
        monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / f"cache-{order[0]}"))
        for seed in order:
            runs[order, seed] = go(f"{order[0]}-{seed}", {**UPPER, "seed": seed})
    for seed in (0, 1):
        same(runs[(0, 1), seed], runs[(1, 0), seed])


def test_a_damaged_file_changes_nothing(
    go: Go, same: Callable[..., None], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = go("cold", UPPER)
    first, second, *_ = kept(cache)
    first.write_bytes(first.read_bytes()[:-10])
    second.unlink()
    same(cold, go("warm", UPPER))


def test_nothing_is_kept_where_it_takes_more_than_may_be(go: Go, cache: Path) -> None:
    for gb in (0.0, 1e-6):
        run = go(f"{gb}", {**UPPER, "adapter.frozen_cache_gb": gb})
        assert not identity(run)["frozen_states"]
        assert kept(cache) == []


def test_the_numbers_are_those_of_whole_passes(go: Go) -> None:
    begun, whole = go("kept", UPPER), go("whole", {**UPPER, "adapter.frozen_cache_gb": 0.0})
    assert begun.results["matrix"] == whole.results["matrix"]
    for stage in range(4):
        one, other = (run.predictions(stage) for run in (begun, whole))
        for row, beside in zip(one["log_likelihoods"], other["log_likelihoods"], strict=True):
            assert list(row) == pytest.approx(list(beside), abs=1e-4)


def test_a_begun_run_takes_the_room_that_more_tasks_need(go: Go, tiny: Any) -> None:
    few = {**UPPER, "tasks": tiny["tasks"][:1], "adapter.frozen_cache_gb": 1e-4}
    assert identity(go("one", few))["frozen_states"]
    more = {**UPPER, "tasks": tiny["tasks"][:2]}
    with pytest.raises(UserError, match="created with frozen_states True; now it would be False"):
        go("one", {**more, "adapter.frozen_cache_gb": 1e-6})
    assert len(go("one", {**more, "adapter.frozen_cache_gb": 1}).results["stages"]) == 3


def test_a_model_with_code_of_its_own_shares_states_with_its_own_revision_alone(
    go: Go, tiny: Any, cache: Path
) -> None:
    trusted = {**UPPER, "model": {"name": tiny["model"], "trust_remote_code": True}}
    go("plain", UPPER)
    assert len(kept(cache)) == 6
    for name in ("one", "two"):
        go(name, trusted)
        assert len(kept(cache)) == 12


def test_a_run_that_asks_for_no_state_keeps_none(go: Go, cache: Path) -> None:
    run = go("written", {**UPPER, "training.limit": 0, "evaluation.scoring": "generation"})
    assert not identity(run)["frozen_states"]
    assert kept(cache) == []


def test_with_all_layers_nothing_is_kept(go: Go, cache: Path) -> None:
    run = go("all", {"evaluation.limit": 8, "training.limit": 16})
    assert identity(run)["frozen_states"] is False
    assert not (cache / FROZEN_LAYERS).exists()


def test_a_method_that_lets_lower_layers_learn_is_refused(go: Go) -> None:
    with pytest.raises(UserError, match="method osf lets something below layer 1 learn"):
        go("osf", {**UPPER, "adapter.kind": "full", "method": "osf"})
