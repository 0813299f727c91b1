"""A run in two processes is the run in one: the same matrix, one writer, one sentence, one exit status."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

import forgetmenot
from forgetmenot import UserError
from forgetmenot.config import load_config
from forgetmenot.engine import ranks
from forgetmenot.runs.api import Run
from forgetmenot.runs.rescore import rescore

Config = Mapping[str, Any]
InProcesses = Callable[..., list[Any]]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


def run_and_show(config: Config) -> tuple[Run, str]:
    screen = io.StringIO()
    run = forgetmenot.run(config, console=Console(file=screen, width=100))
    return run, screen.getvalue()


def test_two_processes_make_the_run_of_one(
    tiny: Config,
    finished: Run,
    tmp_path: Path,
    in_processes: InProcesses,
) -> None:
    config = {**tiny, "output": str(tmp_path / "two")}
    (first, shown), (second, quiet) = in_processes(lambda: run_and_show(config))
    assert first.results == second.results
    assert "03-size" in shown
    assert quiet == ""
    assert first.results["matrix"] == finished.results["matrix"]
    for stage in range(4):
        mine, wanted = (run.predictions(stage)["log_likelihoods"] for run in (first, finished))
        difference = np.abs(np.concatenate(list(mine)) - np.concatenate(list(wanted))).max()
        assert difference <= (0 if stage == 0 else 1e-3)
    scored = [run.results["cost"]["positions"]["00-base"] for run in (first, finished)]
    assert scored[0] == scored[1]
    lines = [
        (run.path / "stages/01-animal/training.jsonl").read_text().splitlines() for run in (first, finished)
    ]
    for got, expected in zip(*(map(json.loads, one) for one in lines), strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-4)

    # Scored anew in two processes and in one.
    (path, reading), other = in_processes(lambda: rescore(tmp_path / "two", prompt="terse"))
    assert other[1] == reading
    assert path.parent == tmp_path / "two" / "readings"
    assert path.name.startswith("terse-animal-colour-size-")
    assert rescore(tmp_path / "two", prompt="terse")[1]["matrix"] == reading["matrix"]

    # Going on with another number of processes would mix two runs.
    (tmp_path / "two" / "results.json").unlink()
    with pytest.raises(UserError, match=r"created with processes 2; now it would be 1"):
        forgetmenot.run(config)


def test_a_sharded_run_is_the_run_of_a_whole_model(
    tiny: Config,
    tmp_path: Path,
    in_processes: InProcesses,
    join_sharded: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list grows in between, so that the weights of a stage are saved whole and sharded again."""
    config = {**tiny, **SMALL, "adapter.kind": "full"}
    short = {**config, "tasks": tiny["tasks"][:1]}
    alone = forgetmenot.run({**config, "output": str(tmp_path / "alone")})
    monkeypatch.setattr(ranks, "join", join_sharded)
    for each in (short, config):
        first, second = in_processes(
            lambda each=each: run_and_show({**each, "output": str(tmp_path / "two")})
        )
    assert first[0].results == second[0].results
    assert first[0].results["matrix"] == alone.results["matrix"]
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["identity"]["sharded"]
    models = [
        AutoModelForCausalLM.from_pretrained(run.path / "stages/03-size/model", use_safetensors=True)
        for run in (first[0], alone)
    ]
    mine, wanted = (torch.nn.utils.parameters_to_vector(model.parameters()).detach() for model in models)
    assert (mine - wanted).norm() < 1e-4 * wanted.norm()  # AdamW makes a whole step of a zero's rounding

    def with_adapters() -> str:
        with pytest.raises(UserError) as error:
            forgetmenot.run({**config, "adapter.kind": "lora", "output": str(tmp_path / "lora")})
        return str(error.value)

    assert "FSDP is for full fine-tuning" in in_processes(with_adapters)[0]


def command(config: Config, file: Path, *more: str) -> list[str]:
    file.write_text(load_config(None, config).to_yaml(), encoding="utf-8")
    return [sys.executable, "-m", "forgetmenot", "run", str(file), "--num-processes", "2", *more]


@pytest.mark.slow
def test_a_mistake_is_said_once(tiny: Config, tmp_path: Path) -> None:
    config = {**tiny, "prompt": "ornate", "output": str(tmp_path / "run")}
    done = subprocess.run(command(config, tmp_path / "c.yaml"), capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith("forgetmenot: ")
    assert done.stderr.count("\n") == 1
    assert "ornate" in done.stderr
    assert done.stdout.count(" learns ") == 1  # what was going to be done, likewise once


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "sentence"),
    [
        (signal.SIGKILL, 137, "a process of the run was ended by signal 9; run the same command again"),
        (signal.SIGINT, 130, "interrupted. "),
    ],
    ids=["kill -9 of one process", "Ctrl-C"],
)
def test_what_ends_one_process_ends_all_and_the_run_goes_on(
    tiny: Config, tmp_path: Path, in_processes: InProcesses, number: int, status: int, sentence: str
) -> None:
    config = {**tiny, "tasks": tiny["tasks"][:2], "training.epochs": {"colour": 20}, "evaluation.limit": 8}
    killed = {**config, "output": str(tmp_path / "killed")}
    process = subprocess.Popen(
        command(killed, tmp_path / "c.yaml"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    events = tmp_path / "killed" / "events.jsonl"
    deadline = time.monotonic() + 200
    while not (events.is_file() and '"02-colour"' in events.read_text()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(started) == 2
    os.kill(int(started[1]) if number == signal.SIGKILL else process.pid, number)
    _, complaint = process.communicate(timeout=100)
    assert process.returncode == status, complaint
    assert complaint.startswith(f"forgetmenot: {sentence}"), complaint
    assert complaint.count("\n") == 1, complaint
    assert not any(Path(f"/proc/{child}").exists() for child in started)
    assert not (tmp_path / "killed" / "results.json").exists()
    direct = {**config, "output": str(tmp_path / "direct")}
    resumed, _ = in_processes(lambda: forgetmenot.run(killed))
    undisturbed, _ = in_processes(lambda: forgetmenot.run(direct))
    assert (resumed.path / "results.json").read_bytes() == (undisturbed.path / "results.json").read_bytes()
    for stage in range(3):
        assert resumed.predictions(stage).equals(undisturbed.predictions(stage))


@pytest.mark.slow
def test_accelerate_launch_makes_the_run_of_one_process(tiny: Config, finished: Run, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    rest = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    run = ["-m", "forgetmenot", "run", "--model", tiny["model"], "--tasks", ",".join(tiny["tasks"])]
    run += ["--set", f"training.batch_size={tiny['training.batch_size']}", "--output", str(tmp_path / "run")]
    ended = subprocess.run(
        [*launcher, *rest, *_a_free_port(), *run],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    launched = Run(tmp_path / "run")
    identity = json.loads((launched.path / "environment.json").read_text())["identity"]
    assert identity["processes"] == 2
    assert ended.stdout.count("Report:") == 1
    one, other = ({**run.results, "cost": None} for run in (launched, finished))
    assert one == other, "packs are dealt, so that only what they cost may differ"


def _a_free_port() -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return ["--main_process_port", str(free.getsockname()[1])]
