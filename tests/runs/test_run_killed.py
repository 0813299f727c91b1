"""Killed at any moment, the same command goes on and ends as if nothing had happened."""

import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot.config import load_config
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.state_files import StateFiles
from forgetmenot.methods import METHODS
from forgetmenot.record.cache import clear_cache
from forgetmenot.runs import execution
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
Config = Mapping[str, Any]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


def _die_at(owner: Any, name: str, count: int, *, after: bool = False, within: str = "") -> None:
    """From now on this process dies by SIGKILL just before (or after) the count-th call of owner.name.

    Only calls count in whose arguments the text `within` occurs.
    """
    original, calls = getattr(owner, name), itertools.count(1)

    def mortal(*arguments: Any, **named: Any) -> Any:
        counts = any(within in str(one) for one in arguments)
        last = counts and next(calls) == count
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, mortal)


def _run_and_die(config: Config, owner: Any, name: str, count: int, **how: Any) -> None:
    """Run in a process of its own, which must die before it is through."""
    assert _status(config, owner, name, count, **how) == -signal.SIGKILL


def _status(config: Config, owner: Any, name: str, count: int, **how: Any) -> int | None:
    """The exit status of a run in a process of its own that dies at a call, should it come to that."""

    def child() -> None:
        _die_at(owner, name, count, **how)
        forgetmenot.run(config)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module", params=["lora", "full"])
def undisturbed(
    request: pytest.FixtureRequest, tiny: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Run]:
    """A config without its output, and the run that it gives undisturbed."""
    config = {**tiny, **SMALL, "adapter.kind": request.param}
    return config, forgetmenot.run({**config, "output": str(tmp_path_factory.mktemp("runs") / "undisturbed")})


# Three stages of two steps each: 6 steps, 4 stages scored on 3 tasks, 4 commits. The guard comes before them,
# with ten passes of `forward` and one call of `log_likelihoods`.
MOMENTS = {
    "in the first stage": [(Learner, "forward", 12)],
    "between two steps": [(METHODS["sequential"], "stepped", 3)],
    "while scoring the base": [(Learner, "log_likelihoods", 3)],
    "while scoring a stage": [(Learner, "log_likelihoods", 9)],
    "before its folder appears": [(Path, "rename", 9)],
    "after a commit, before its time is noted": [(RunDirectory, "record_time", 3)],
    "before the results": [(execution, "read_results", 1)],
    "before the report": [(execution, "write_report", 1)],
    "again and again": [
        (Learner, "log_likelihoods", 2),
        (METHODS["sequential"], "stepped", 1),
        (RunDirectory, "record_time", 1),
        (Learner, "log_likelihoods", 4),
        (METHODS["sequential"], "stepped", 2),
        (execution, "read_results", 1),
    ],
}


@pytest.mark.parametrize("deaths", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_ends_as_an_undisturbed_one(
    undisturbed: tuple[Config, Run], tmp_path: Path, same: Same, deaths: list[tuple[Any, str, int]]
) -> None:
    config = {**undisturbed[0], "output": str(tmp_path / "killed")}
    for death in deaths:
        _run_and_die(config, *death)
        assert not (tmp_path / "killed" / "results.json").exists() or death[1] == "write_report"
    same(undisturbed[1], forgetmenot.run(config))


def test_no_rename_is_a_bad_moment(undisturbed: tuple[Config, Run], tmp_path: Path, same: Same) -> None:
    """Whatever becomes visible does so by a rename: die before each, go on, die after it, go on.

    Each attempt begins with those of environment.json, config.yaml and their seal; a stage is one more.
    """
    config = {**undisturbed[0], "output": str(tmp_path / "killed")}
    moments = ((count, after) for count in itertools.count(1) for after in (False, True))
    died = 0
    while _status(config, os, "rename", *(moment := next(moments))[:1], after=moment[1]) != 0:
        died += 1
    assert died >= 2 * (6 + 4)
    assert (tmp_path / "killed" / "report.html").exists()
    same(undisturbed[1], forgetmenot.run(config))


def test_a_grown_list_may_be_killed_while_an_old_stage_is_replaced(
    tiny: Config, tmp_path: Path, same: Same
) -> None:
    """Its old stages are scored on the new task, and the old folder gives way to the new one."""
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2]}
    direct = forgetmenot.run({**config, "output": str(tmp_path / "direct")})
    config |= {"output": str(tmp_path / "grown")}
    forgetmenot.run({**config, "tasks": tiny["tasks"][:1]})
    for stage in ("00-base", "01-animal"):
        for moment in (1, 2):  # the old folder put aside; the new one in its place
            for after in (False, True):
                _run_and_die(config, os, "rename", moment, after=after, within=f"stages/{stage}")
                assert not (tmp_path / "grown" / "results.json").exists()
    same(direct, forgetmenot.run(config))
    told = _events(tmp_path / "grown")
    assert [told.count(event) for event in (("committed", "00-base"), ("began", "01-animal"))] == [1, 1]


def test_what_is_half_written_is_not_read(
    undisturbed: tuple[Config, Run], tmp_path: Path, same: Same
) -> None:
    config = {**undisturbed[0], "output": str(tmp_path / "killed")}
    """What its training left is whole; its scores are made again."""
    _run_and_die(config, Learner, "log_likelihoods", 9)
    (left,) = (tmp_path / "killed" / "stages").glob(".*.writing")
    assert left.name == ".02-colour.writing"
    for file in ("scores.json", "predictions.parquet"):
        (left / file).write_text("{", encoding="utf-8")
    same(undisturbed[1], forgetmenot.run(config))
    assert not left.exists()


@pytest.fixture(scope="module")
def long(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Run]:
    """A config whose second stage takes a while, and its undisturbed run."""
    config = {**tiny, "tasks": tiny["tasks"][:2], "training.epochs": {"colour": 30}, "evaluation.limit": 8}
    return config, forgetmenot.run({**config, "output": str(tmp_path_factory.mktemp("runs") / "long")})


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def test_the_command_goes_on_after_a_signal(
    long: tuple[Config, Run], tmp_path: Path, same: Same, number: int, status: int
) -> None:
    """A real process and a real signal, at whatever moment it comes once the second stage has begun."""
    config, undisturbed = long
    killed = tmp_path / "killed"
    file = tmp_path / "config.yaml"
    file.write_text(load_config(None, {**config, "output": str(killed)}).to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "forgetmenot", "run", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while ("began", "02-colour") not in _events(killed) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == status, complaint
    assert "Traceback" not in complaint
    if number != signal.SIGKILL:
        how = "terminated" if number == signal.SIGTERM else "interrupted"
        assert re.fullmatch(
            rf"forgetmenot: {how}\. 2 of 3 stages are done and kept\."
            r"( Stage 02-colour is saved at step \d+ of \d+\.)? "
            rf"Go on with: fmn resume {killed}\n",
            complaint,
        )
    assert sorted(path.name for path in (killed / "stages").glob("0*")) == ["00-base", "01-animal"]
    same(undisturbed, forgetmenot.run(load_config(file)))


def _events(run: Path) -> list[tuple[str, str | None]]:
    path = run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [(event["event"], event.get("stage")) for event in map(json.loads, lines)]


@pytest.mark.parametrize("warm", [True, False])
def test_a_run_of_the_upper_layers_goes_on_with_its_cache_and_without(
    tiny: Config, tmp_path: Path, same: Same, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    config = {**tiny, **SMALL, "adapter.layers": {"top": 1}}
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "whole"))
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cut"))
    config["output"] = str(tmp_path / "killed")
    for owner, name, count in ((StateFiles, "write", 3), (METHODS["sequential"], "stepped", 3)):
        _run_and_die(config, owner, name, count, after=name == "write")
        if not warm:
            assert sum(one.files for one in clear_cache())
    same(undisturbed, forgetmenot.run(config))
