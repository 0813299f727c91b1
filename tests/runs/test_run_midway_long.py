"""A long stage of a pre-trained model, killed at three fifths, ends as if nothing had happened."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from forgetmenot.config import load_config
from forgetmenot.runs.api import Run
from tests.runs.test_run_midway import assert_the_same

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]
SHARED = Path(__file__).resolve().parents[3] / "shared"
STEPS, KILLED, EVERY = 2000, 1200, 100
METHODS = ["sequential", "ewc", "si", "der++", "ema", "self-distillation", "adapter-per-task"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SHARED / "models" / "base-4m").is_dir(), reason="the model base-4m is not on this machine"
    ),
]


@pytest.fixture
def config(make_task: Any) -> dict[str, Any]:
    """A first stage of 2,000 steps, of one example each."""
    words = ["good", "fine", "great", "bad", "poor", "dull"]
    rows = [
        {"text": f"{words[k % 6]} film number {k * 7919 % 9973}", "label": "plus" if k % 6 < 3 else "minus"}
        for k in range(STEPS + 340)  # of which `select` takes some
    ]
    prompts = {"default": {"template": "{{ text }}\nIt was", "choices": {"plus": "good", "minus": "bad"}}}
    train, score = rows[: STEPS + 300], rows[STEPS + 300 :]
    return of(make_task("films", train, score, label="label", metric="accuracy", prompts=prompts))


def of(task: Path) -> dict[str, Any]:
    return {
        "model": str(SHARED / "models" / "base-4m"),
        "tasks": [str(task)],
        "training.batch_size": 1,
        "training.limit": STEPS,
        "training.save_every": EVERY,
    }


def start(config: Config, folder: Path, more: tuple[str, ...]) -> subprocess.Popen[str]:
    """The run as a command, in a session of its own."""
    file = folder.with_suffix(".yaml")
    file.write_text(load_config(None, {**config, "output": str(folder)}).to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "forgetmenot", "run", str(file), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def kill_whole(pid: int) -> None:
    """Kill a command and all that it has started: a launcher's processes are groups of their own."""
    command = psutil.Process(pid)
    everything = [command, *command.children(recursive=True)]
    for one in everything:
        one.kill()
    psutil.wait_procs(everything[1:])


def assert_killed_it_goes_on(config: Config, folder: Path, same: Same, *more: str) -> None:
    """Undisturbed; killed by SIGKILL, all its processes at once; and taken up again."""
    whole = start(config, folder / "undisturbed", more)
    whole.communicate()
    assert whole.returncode == 0
    log = folder / "killed" / "stages" / ".01-films.training.jsonl"
    with start(config, folder / "killed", more) as process:
        while not log.is_file() or log.read_bytes().count(b"\n") < KILLED:
            assert process.poll() is None
            time.sleep(0.05)
        kill_whole(process.pid)
    resumed = start(config, folder / "killed", more)
    said, _ = resumed.communicate()
    assert resumed.returncode == 0
    (after,) = re.findall(r"going on after step ([\d,]+) of 2,000", said)
    assert KILLED - EVERY <= int(after.replace(",", "")) < STEPS
    assert len((folder / "killed/stages/01-films/training.jsonl").read_text().splitlines()) == STEPS
    assert_the_same(Run(folder / "undisturbed"), Run(folder / "killed"), same)


@pytest.mark.parametrize("method", METHODS)
def test_a_long_stage_is_killed_at_three_fifths(
    config: dict[str, Any], tmp_path: Path, same: Same, method: str
) -> None:
    assert_killed_it_goes_on({**config, "method": method}, tmp_path, same)


def test_a_long_stage_of_preferences(make_task: Any, tmp_path: Path, same: Same) -> None:
    rows = [{"word": f"word {k}", "good": f"yes {k}", "bad": f"no {k}"} for k in range(STEPS + 340)]
    prompts = {"default": {"template": "Say of {{ word }}:"}}
    train, score = rows[: STEPS + 300], rows[STEPS + 300 :]
    pairs = make_task("films", train, score, chosen="good", rejected="bad", prompts=prompts)
    assert_killed_it_goes_on(of(pairs), tmp_path, same)


def test_a_long_stage_of_two_processes(config: dict[str, Any], tmp_path: Path, same: Same) -> None:
    config["training.batch_size"], config["training.epochs"] = 2, 2  # each has a part of a step
    assert_killed_it_goes_on(config, tmp_path, same, "--num-processes", "2")
