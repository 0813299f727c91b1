"""A long stage of a pre-trained model, killed at three fifths, ends as if nothing had happened."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot.config import load_config
from forgetmenot.runs.api import Run
from tests.runs.test_run_midway import assert_the_same, trained_steps

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]
SHARED = Path(__file__).parents[3] / "shared"
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
    films = make_task(
        "films", rows[: STEPS + 300], rows[STEPS + 300 :], label="label", metric="accuracy", prompts=prompts
    )
    return {
        "model": str(SHARED / "models" / "base-4m"),
        "tasks": [str(films)],
        "training.batch_size": 1,
        "training.limit": STEPS,
        "training.save_every": EVERY,
    }


def kill_at(config: Config, step: int) -> None:
    """Run in a process of its own until so many steps are saved, and end it by SIGKILL."""
    output = Path(config["output"])
    file, log = output.with_suffix(".yaml"), output / "stages" / ".01-films.training.jsonl"
    file.write_text(load_config(None, config).to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "forgetmenot", "run", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not log.is_file() or log.read_bytes().count(b"\n") < step:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()


@pytest.mark.parametrize("method", METHODS)
def test_a_long_stage_is_killed_at_three_fifths(
    config: dict[str, Any], tmp_path: Path, same: Same, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    config["method"] = method
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "killed")
    kill_at(config, KILLED)
    done = trained_steps(monkeypatch)
    resumed = forgetmenot.run(config)
    assert KILLED - EVERY < done[0] <= KILLED + 2 * EVERY
    assert done == list(range(done[0], STEPS + 1))
    assert_the_same(undisturbed, resumed, same)
