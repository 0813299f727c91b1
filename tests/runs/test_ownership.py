"""A directory that holds what no command of ours wrote is refused, and nothing in it is touched."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.ownership import check_ours
from tests.running import Go, Same

STRANGERS = {
    "a config": {"config.yaml": "model: mine\ntasks: [a]\noutput: here\n"},
    "results": {"results.json": '{"version": 1, "tasks": []}'},
    "a report": {"report.html": "<title>Mine</title>"},
    "stages": {"stages/00-base/scores.json": "[]"},
    "an environment": {"environment.json": '{"python": "3.11"}'},
    "a note": {"notes.txt": "keep"},
    "a hidden file": {".env": "KEY=1"},
    "a lock": {".lock": "another program's"},
    "a broken config": {"config.yaml": "{" * 1000},
}


def _content(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_folder_is_refused_and_left_as_it_is(
    name: str, fresh: bool, go: Go, tmp_path: Path
) -> None:
    for file, text in STRANGERS[name].items():
        (tmp_path / "out" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / file).write_text(text)
    before = _content(tmp_path / "out")
    with pytest.raises(UserError, match="is no folder of `fmn run`"):
        go("out", fresh=fresh)
    assert _content(tmp_path / "out") == before


@pytest.mark.parametrize("there", [(), (".lock",)])
def test_an_empty_folder_is_taken(there: tuple[str, ...], tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).touch()
    check_ours(tmp_path, "run")


def test_fresh_leaves_what_a_user_put_beside_a_run(finished: Run, go: Go, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    go("out", fresh=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("lost", [(".lock",), (".lock", "environment.json"), (".lock", "config.yaml")])
def test_a_run_without_a_mark_is_known_by_its_files(
    lost: tuple[str, ...], finished: Run, tmp_path: Path
) -> None:
    """One of an earlier version, or copied without its hidden files; killed while it was cleared, too."""
    shutil.copytree(finished.path, tmp_path / "out")
    for name in lost:
        (tmp_path / "out" / name).unlink()
    check_ours(tmp_path / "out", "run")


def test_the_mark_outlives_every_later_command(finished: Run) -> None:
    for _ in range(2):
        with RunDirectory(finished.path).locked():
            assert (finished.path / ".lock").read_text() == "forgetmenot run\n"


def test_a_run_killed_before_its_first_file_goes_on(
    tiny: Mapping[str, Any], go: Go, finished: Run, same: Same, tmp_path: Path
) -> None:
    """With receipts, which are the first that a run writes, and no config yet."""
    code = (
        "import json, os, signal, sys\n"
        "from pathlib import Path\n"
        "from forgetmenot.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked():\n"
        "    RunDirectory(Path(sys.argv[1])).write_json('receipts/a.json', {})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    same(go("out"), finished)


def test_a_run_is_not_put_into_a_study(go: Go, tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "out").locked("study"):
        RunDirectory(tmp_path / "out").write_text("study.yaml", "")
    with pytest.raises(UserError, match="holds what `fmn study` wrote"):
        go("out")


def test_a_study_of_a_user_beside_other_files_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"base": {}, "grid": {"seed": [0]}}))
    with pytest.raises(UserError, match=r"study\.yaml"):
        check_ours(tmp_path, "study")


def test_a_study_without_a_mark_is_known(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"version": 1, "grid": {}, "runs": [], "cells": []}))
    check_ours(tmp_path, "study")
