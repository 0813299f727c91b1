"""Ctrl-C at a terminal: what was measured stays on the screen, and one sentence says how the run goes on."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import forgetmenot
from forgetmenot import signals
from forgetmenot.config import load_config
from forgetmenot.engine.learner import Learner
from forgetmenot.runs import execution
from forgetmenot.runs.midway import Midway
from tests.running import Same

Config = Mapping[str, Any]
ERASED = "\x1b[2K"
"""What rich clears a line with that it draws again."""


@pytest.fixture(scope="module")
def long(tiny: Config) -> Config:
    """A config whose second stage takes a while."""
    return {**tiny, "tasks": tiny["tasks"][:2], "training.epochs": {"colour": 40}, "evaluation.limit": 8}


def test_the_table_stays_and_the_run_goes_on_by_its_directory(
    long: Config, tmp_path: Path, same: Same
) -> None:
    run_dir, file = tmp_path / "a run", tmp_path / "config.yaml"
    file.write_text(load_config(None, {**long, "output": str(run_dir)}).to_yaml(), encoding="utf-8")
    status, shown = _interrupted_at_a_terminal(["run", str(file)], run_dir)
    assert status == 130
    assert "Traceback" not in shown
    screen = shown[shown.rindex(ERASED) :]  # nothing of this is drawn over
    table, _, said = screen.partition("forgetmenot: ")
    rows = {line.split()[0]: line.split()[1:] for line in _plain(table).splitlines() if line.strip()}
    assert [float(rows["00-base"][0]), float(rows["01-animal"][0])]
    assert rows["02-colour"] == ["·", "·"]
    assert re.fullmatch(
        r"interrupted\. 2 of 3 stages are done and kept\.( Stage 02-colour is saved at step \d+ of \d+\.)? "
        rf"Go on with: fmn resume '{run_dir}'",
        " ".join(_plain(said).split()),
    )
    screen_of_resumed = io.StringIO()
    resumed = forgetmenot.resume(run_dir, console=Console(file=screen_of_resumed, width=200))
    told = screen_of_resumed.getvalue()
    assert "2 of 3 stages are done, the last 01-animal; going on with 02-colour." in told
    assert told.index("going on with 02-colour") < told.index("00-base:  animal")
    same(forgetmenot.run({**long, "output": str(tmp_path / "undisturbed")}), resumed)


def _interrupted_at_a_terminal(arguments: list[str], run_dir: Path) -> tuple[int, str]:
    """Run a command at a terminal, Ctrl-C it in its second stage: its status, and all that was shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "50"}
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetmenot", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    shown, deadline, asked = b"", time.monotonic() + 200, False
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # EIO: the other end is closed
            break
        assert time.monotonic() < deadline
        if not asked and "training 02-colour" in _events(run_dir) and b"02-colour" in shown:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            asked = True
    os.close(ours)
    return process.wait(60), shown.decode()


def _events(run_dir: Path) -> list[str]:
    path = run_dir / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [f"{event['event']} {event.get('stage', '')}" for event in map(json.loads, lines)]


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def _interrupting(owner: Any, name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGINT to this process just before the count-th call of owner.name."""
    original, calls = getattr(owner, name), iter(range(1, 10_000))

    def called(*arguments: Any, **named: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize(
    ("owner", "name", "count", "where"),
    [
        (Learner, "log_likelihoods", 3, "0 of 3 stages are done and kept."),
        (
            Learner,
            "log_likelihoods",
            5,
            "1 of 3 stages are done and kept. 01-animal is trained, and what",
        ),
        (
            Midway,
            "stepped",
            3,
            "1 of 3 stages are done and kept. Stage 01-animal is saved",
        ),
        (execution, "read_results", 1, "3 of 3 stages are done and kept."),
    ],
    ids=["scoring the base", "scoring a stage", "in training", "before the results"],
)
def test_it_says_what_is_kept(
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    count: int,
    where: str,
) -> None:
    config = {**tiny, "tasks": tiny["tasks"][:2], "output": str(tmp_path / "run")}
    _interrupting(owner, name, count, monkeypatch)
    with pytest.raises(signals.Interrupted) as interrupted:
        forgetmenot.run(config)
    assert str(interrupted.value).startswith(where)
    assert interrupted.value.run_dir == str(tmp_path / "run")


def test_before_anything_is_begun_the_same_command_goes_on(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --fresh: what is there is still the earlier run, which `fmn resume` would go on with."""
    forgetmenot.run({**tiny, "tasks": tiny["tasks"][:1], "output": str(tmp_path / "run")})
    _interrupting(execution, "open_session", 1, monkeypatch)
    with pytest.raises(signals.Interrupted) as interrupted:
        forgetmenot.run({**tiny, "output": str(tmp_path / "run")}, fresh=True)
    assert (interrupted.value.where, interrupted.value.run_dir) == ("", "")
