"""Runs of self-distillation: going on within a stage, and two processes, with either teacher."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forgetmenot
from forgetmenot.runs.api import Run
from tests.runs.test_run_midway import SHORT, assert_the_same, cut_off
from tests.written import FEW_WORDS

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]
FROZEN = {"name": "self-distillation", "max_new_tokens": 8, **FEW_WORDS}
AVERAGE = {**FROZEN, "teacher": "ema", "rate": 0.5, "divergence": "reverse", "top_k": 0, "skip": 1}
METHODS = {"frozen": FROZEN, "ema": AVERAGE}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("teacher", METHODS)
def test_it_goes_on_within_a_stage(
    tiny: Config, tmp_path: Path, same: Same, teacher: str, precision: str
) -> None:
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": METHODS[teacher]}
    config |= {"training.precision": precision, "training.learning_rate": 0.01}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_off(config, 2)
    assert_the_same(undisturbed, forgetmenot.run(config), same)


@pytest.mark.parametrize("teacher", METHODS)
def test_two_processes_are_one(
    tiny: Config, tmp_path: Path, in_processes: Callable[..., list[Any]], teacher: str
) -> None:
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": METHODS[teacher]}
    alone = forgetmenot.run({**config, "output": str(tmp_path / "one")})
    first, second = in_processes(lambda: forgetmenot.run({**config, "output": str(tmp_path / "two")}))
    assert first.results == second.results
    for stage in range(3):
        mine, wanted = (run.predictions(stage)["log_likelihoods"] for run in (first, alone))
        assert np.abs(np.concatenate(list(mine)) - np.concatenate(list(wanted))).max() <= 2e-3
