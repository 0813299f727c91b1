"""Too little memory, disk or threads: smaller packs and the same numbers, or one sentence; nothing lost."""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError

import forgetmenot
from forgetmenot.engine import forward, generate, gradients, readings
from forgetmenot.errors import UserError
from forgetmenot.runs import midway, stage_training
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.loop import Loop

Config = Mapping[str, Any]
Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}

NO_ROOM: dict[str, Callable[[], Exception]] = {
    "a GPU's": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "a CPU's": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "Python's": MemoryError,
}


def make_room_for(monkeypatch: pytest.MonkeyPatch, most: int, error: Callable[[], Exception]) -> None:
    """From the run's loop on, let no pass have more positions, and no batch of answers more rows."""
    run, pass_on, write = Loop.run, forward.log_likelihoods, generate.Writer._write

    def narrow(model: Any, packed: Any, *arguments: Any, **named: Any) -> Any:
        if packed.nodes > most:
            raise error()
        return pass_on(model, packed, *arguments, **named)

    def few(writer: Any, batch: Any, *arguments: Any) -> Any:
        if len(batch) > 4:
            raise error()
        return write(writer, batch, *arguments)

    def begin(loop: Loop) -> None:
        monkeypatch.setattr(gradients, "log_likelihoods", narrow)
        monkeypatch.setattr(readings, "log_likelihoods", narrow)
        monkeypatch.setattr(generate.Writer, "_write", few)
        monkeypatch.setattr(generate, "TOKENS", 1000)  # more than the eight rows need
        run(loop)

    monkeypatch.setattr(Loop, "run", begin)


def apart(one: Run, other: Run) -> float:
    """The largest difference of a log-likelihood."""
    differences = []
    for stage in range(len(one.results["stages"])):
        mine, theirs = (run.predictions(stage)["log_likelihoods"].dropna() for run in (one, other))
        differences.append(np.abs(np.concatenate(list(mine)) - np.concatenate(list(theirs))).max())
    return float(max(differences))


@pytest.mark.parametrize("kind", NO_ROOM)
def test_what_does_not_fit_is_computed_in_smaller_packs(
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    readings = [{"scoring": "generation"}]
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2], "evaluation.readings": readings}
    whole = forgetmenot.run({**config, "output": str(tmp_path / "whole")})
    make_room_for(monkeypatch, 60, NO_ROOM[kind])
    narrow = forgetmenot.run({**config, "output": str(tmp_path / "narrow")}, console=Console(width=400))
    assert "The memory is full: packs have about" in capsys.readouterr().out
    assert narrow.results["matrix"] == whole.results["matrix"]
    assert apart(narrow, whole) < 2e-3


def test_what_never_fits_is_said(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2]}
    whole = forgetmenot.run({**config, "output": str(tmp_path / "whole")})
    config["output"] = str(tmp_path / "narrow")
    with monkeypatch.context() as patch:
        make_room_for(patch, 1, MemoryError)
        with pytest.raises(
            UserError, match=r"The memory is full: .*smaller training\.max_length.*kept in .*narrow; .*go on"
        ):
            forgetmenot.run(config)
    same(whole, forgetmenot.run(config))


def test_a_stage_that_is_taken_up_keeps_its_smaller_packs(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums are then those of the process that was cut off."""
    config = {**tiny, "tasks": tiny["tasks"][:1], "training.limit": 28, "training.save_every": 2}
    config["output"] = str(tmp_path / "run")
    budgets = []

    class Stopping(midway.Midway):
        def stepped(self, state: Any) -> None:
            super().stepped(state)
            budgets.append(state.learner.budget)
            if state.step == 2 and len(budgets) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(stage_training, "Midway", Stopping)
    with monkeypatch.context() as patch:
        make_room_for(patch, 60, MemoryError)
        with pytest.raises(KeyboardInterrupt):
            forgetmenot.run(config)
    forgetmenot.run(config)
    assert len(set(budgets)) == 1


def test_written_answers_that_fitted_are_not_written_again(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows in batches of about three: the third does not fit, once."""
    written: list[int] = []
    write = generate.Writer._write

    def few(writer: Any, batch: Any, *arguments: Any) -> Any:
        if len(written) == 2 and writer.divided == 1:
            raise MemoryError
        written.append(len(batch))
        return write(writer, batch, *arguments)

    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:1], "evaluation.scoring": "generation"}
    whole = forgetmenot.run({**config, "output": str(tmp_path / "whole")})
    run = Loop.run

    def begin(loop: Loop) -> None:
        monkeypatch.setattr(generate, "TOKENS", 100)
        monkeypatch.setattr(generate.Writer, "_write", few)
        run(loop)

    monkeypatch.setattr(Loop, "run", begin)
    narrow = forgetmenot.run({**config, "output": str(tmp_path / "narrow")})
    assert narrow.results["matrix"] == whole.results["matrix"]
    assert narrow.results["stages"] == whole.results["stages"]
    assert sum(written) == 3 * 8  # the base is asked twice (again in smaller batches), the stage once


FULL: dict[str, Callable[[], Exception]] = {
    "the system's": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file"),
    "a quota": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "too large": lambda: OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    "safetensors'": lambda: SafetensorError("IoError: No space left on device (os error 28)"),
    "torch's": lambda: RuntimeError("[enforce fail at inline_container.cc] . No space left on device"),
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_is_one_sentence(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same, kind: str
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:2]}
    whole = forgetmenot.run({**config, "output": str(tmp_path / "whole")})
    config["output"] = str(tmp_path / "full")

    def full(*_: Any) -> None:
        raise FULL[kind]()

    for place in ("record_trained", "record_time", "sweep"):
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, place, full)
            with pytest.raises(UserError, match=r"The disk is full.*: make room, .*kept in .*full; .*go on"):
                forgetmenot.run(config)
    same(whole, forgetmenot.run(config))


def test_a_disk_too_full_to_save_a_stage_does_not_end_it(
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same: Same,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = {**tiny, **SMALL, "tasks": tiny["tasks"][:1], "training.save_every": 1}
    whole = forgetmenot.run({**config, "output": str(tmp_path / "whole")})

    def full(*_: Any) -> None:
        raise FULL["safetensors'"]()

    monkeypatch.setattr(midway, "save_file", full)
    narrow = forgetmenot.run({**config, "output": str(tmp_path / "full")}, console=Console(width=300))
    assert "The disk is full, so step 1 of 2 was not saved; training goes on." in capsys.readouterr().out
    same(whole, narrow)
    assert [path.name for path in (narrow.path / "stages").rglob(".*")] == []


def test_no_further_thread_is_said(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(RunDirectory, "record_time", starved)
    with pytest.raises(UserError, match=r"no further thread.*OMP_NUM_THREADS"):
        forgetmenot.run({**tiny, **SMALL, "output": str(tmp_path / "run")})
