"""Where the runs of a study are started: how many threads each has, and what says so."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.process import Job, Process
from forgetmenot.studies.config import Resources, load_study
from forgetmenot.studies.launch import this_machine, threads_of


@pytest.mark.parametrize(
    ("cpus", "wanted", "workers", "threads", "why"),
    [
        (3, "2", 1, 3, "resources.cpus"),
        (None, "2", 1, 2, "OMP_NUM_THREADS"),
        (None, "2", 4, 2, "OMP_NUM_THREADS"),
        (None, "2,1", 1, 2, "OMP_NUM_THREADS"),
        (None, None, 1, 8, "all cores"),
        (None, "", 3, 2, "8 cores shared by 3"),
        (None, None, 16, 1, "8 cores shared by 16"),
    ],
)
def test_the_threads_of_a_run_are_those_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    cpus: int | None,
    wanted: str | None,
    workers: int,
    threads: int,
    why: str,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads_of(Resources(cpus=cpus), workers, cores=8) == (threads, why)


@pytest.mark.parametrize("wanted", ["many", "0", "-1"])
def test_what_is_no_number_of_threads_is_said(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    with pytest.raises(UserError, match=f"OMP_NUM_THREADS: '{wanted}' is no number of threads"):
        threads_of(Resources(), 1, cores=8)


def test_a_run_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with this_machine(Resources(), workers=2) as place:
        started: dict[str, Any] = {}
        monkeypatch.setattr("forgetmenot.process.subprocess.Popen", lambda *_, **how: started.update(how))
        Process(Job(tmp_path, Path("a.yaml"), Path("a.log"), place.threads))
    assert started["env"]["OMP_NUM_THREADS"] == started["env"]["MKL_NUM_THREADS"] == "3"


def test_a_study_says_how_many_and_its_runs_compute_with_so_many(
    tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    """A real command, whose run is a process of its own."""
    config = load_study(
        {
            "base": {**tiny, "tasks": tiny["tasks"][:1], "training.limit": 8, "evaluation.limit": 4},
            "grid": {"seed": [0]},
            "output": str(tmp_path / "study"),
        }
    )
    (tmp_path / "study.yaml").write_text(config.to_yaml(), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "forgetmenot", "study", str(tmp_path / "study.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Threads of each run: 2 (OMP_NUM_THREADS)" in ended.stdout
    (log,) = (tmp_path / "study" / "runs").glob("*.log")
    assert "Device: cpu, threads 2;" in log.read_text()
