"""A stage in a check answers as it did in its run, whatever the method and the adapter."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.gate.check import check
from forgetmenot.runs.api import Run

SETTINGS: list[dict[str, Any]] = [
    {"method": "adapter-per-task"},
    {"method": "weight-averaging"},
    {"method": "ema"},
    {"method": "ties"},
    {"method": "moe-lora"},
    {"method": "progressive-prompts", "adapter": {"kind": "prompt", "tokens": 3}},
    {"method": "calm"},
    {"adapter": {"kind": "bridge"}},
    {"method": "single", "training.learning_rate": 1e-2},
    {"method": "joint"},
    {"adapter": {"kind": "full"}},
    {"adapter.per_stage": "new"},
    {"adapter.per_stage": "merge"},
    {"training.precision": "bf16"},
    {"checkpoints": "last"},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(map(str, one.values())))
def test_the_last_stage_scores_as_in_its_run(
    go: Callable[..., Run], tiny_tasks: Mapping[str, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = go("one", {"training.epochs": 3, "training.learning_rate": 3e-3, **settings})
    moved = run.path.rename(tmp_path / "moved")
    names = run.results["tasks"]
    tasks = [str(tiny_tasks[name]) for name in names]
    found = check(f"{moved}:0", f"{moved}:last", tasks=tasks, output=tmp_path / "check")
    verdicts = found.content["verdicts"]
    first, last = run.results["matrix"][0], run.results["matrix"][-1]
    assert first != last
    assert [verdicts[name]["before"] for name in names] == first
    assert [verdicts[name]["after"] for name in names] == last
    for name, verdict in run.results["verdicts"]["base_end"].items():  # as many tasks, so the same correction
        assert (verdicts[name]["decision"], verdicts[name]["p_holm"]) == (
            verdict["decision"],
            verdict["p_holm"],
        )
