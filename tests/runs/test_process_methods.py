"""Every method in two processes is itself in one, and those that a sharded model cannot serve are refused."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forgetmenot
from forgetmenot import UserError
from forgetmenot.engine import ranks
from forgetmenot.methods import METHODS
from forgetmenot.runs.api import Run
from tests.written import ROOMY

Config = Mapping[str, Any]
InProcesses = Callable[..., list[Any]]

QUICK = ("ewc", "replay")
OTHERS = sorted(set(METHODS) - {*QUICK, "sequential"})
SHARDED = sorted(
    name for name, one in METHODS.items() if one.shards and "full" in one.needs.get("kind", ("full",))
)

ROUNDING = {"ties": 2e-2}
"""Nats that processes may differ by, 2e-3 for methods without a jump. What TIES trims or elects has one: an
entry at the edge, or whose signs nearly cancel, is kept by the one and dropped by the other."""


def _configs(tiny: Config, folder: Path, methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    settings = {"evaluation.limit": 8, "training.limit": 16, "tasks": tiny["tasks"][:2]}
    return {
        name: {
            **tiny,
            **settings,
            "method": name,
            "output": str(folder / name.replace("+", "p")),
            **ROOMY.get(name, {}),
        }
        for name in methods
    }


def _run_all(configs: Mapping[str, Config]) -> dict[str, Run]:
    return {name: forgetmenot.run(config) for name, config in configs.items()}


def _assert_two_are_one(
    tiny: Config, folder: Path, in_processes: InProcesses, methods: Iterable[str]
) -> None:
    methods = list(methods)
    alone = _run_all(_configs(tiny, folder / "one", methods))
    first, second = in_processes(lambda: _run_all(_configs(tiny, folder / "two", methods)))
    for name in methods:
        assert first[name].results == second[name].results, name
        assert first[name].results["cost"]["memory_kept"] == alone[name].results["cost"]["memory_kept"], name
        for stage in range(len(alone[name].results["stages"])):
            mine, wanted = (run[name].predictions(stage)["log_likelihoods"] for run in (first, alone))
            difference = np.abs(np.concatenate(list(mine)) - np.concatenate(list(wanted))).max()
            assert difference <= ROUNDING.get(name, 2e-3), (name, stage, difference)


def test_a_penalty_and_rehearsal_in_two_processes(
    tiny: Config, tmp_path: Path, in_processes: InProcesses
) -> None:
    _assert_two_are_one(tiny, tmp_path, in_processes, QUICK)


@pytest.mark.slow
def test_every_other_method_in_two_processes(tiny: Config, tmp_path: Path, in_processes: InProcesses) -> None:
    """One group of processes for all of them."""
    _assert_two_are_one(tiny, tmp_path, in_processes, OTHERS)


@pytest.mark.slow
def test_a_method_that_says_so_works_sharded(
    tiny: Config,
    tmp_path: Path,
    in_processes: InProcesses,
    join_sharded: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = {**tiny, "adapter.kind": "full"}
    alone = _run_all(_configs(full, tmp_path / "one", SHARDED))
    monkeypatch.setattr(ranks, "join", join_sharded)
    first, _ = in_processes(lambda: _run_all(_configs(full, tmp_path / "two", SHARDED)))
    for name in SHARDED:
        assert first[name].results["matrix"] == alone[name].results["matrix"], name


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if not method.shards))
def test_what_cannot_be_sharded_is_refused_before_a_model_is_loaded(
    tiny: Config, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetmenot.engine.shards.wanted", lambda: True)
    kinds = METHODS[method].needs.get("kind", ("full",))
    kind = "full" if "full" in kinds else kinds[0]
    with pytest.raises(UserError, match=rf"method\.name: {method} works with whole .* without --use_fsdp"):
        forgetmenot.run({**tiny, "method": method, "adapter.kind": kind, "model": "no/such-model"})
