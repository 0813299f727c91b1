"""What the callback does when a task is forgotten, and when something fails."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from forgetmenot.gate import watcher as watcher_module
from forgetmenot.gate.callback import ForgettingCallback
from tests.gate.training import (
    failing,
    failing_later,
    model_of,
    settings,
    trainer_of,
)


def test_a_failure_in_the_middle_is_said_once_and_leaves_a_null_cell(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "evaluate", failing_later())
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    ForgettingCallback(watched, every=2, trainer=trainer)
    with pytest.warns(UserWarning, match="has no score") as warned:
        trainer.train()
    said = [str(one.message) for one in warned if "ForgettingCallback" in str(one.message)]
    assert len(said) == 1
    assert "size has no score at step 2, and training goes on (OutOfMemoryError: no room" in said[0]
    results = json.loads((tmp_path / "forgetting" / "results.json").read_text())
    assert [[cell is None for cell in row] for row in results["matrix"]] == [[False, False]] + 3 * [
        [False, True]
    ]
    reasons = [gap["reason"] for gap in results["readings"][0]["missing"]]
    assert len(reasons) == 3
    assert all(reason.startswith("OutOfMemoryError: no room for") for reason in reasons)
    assert results["verdicts"]["base_end"]["size"]["decision"] == "cannot tell"
    rows = [row for row in trainer.state.log_history if "forgetting/animal/accuracy" in row]
    assert [row.get("forgetting/missing") for row in rows] == [None, 1, 1, 1]
    assert not any("forgetting/size/accuracy" in row for row in rows[1:])


def test_a_base_that_cannot_be_asked_ends_the_training_before_it_begins(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "evaluate", failing)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    ForgettingCallback(watched, every=2, trainer=trainer)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_page_that_cannot_be_written_does_not_lose_the_model(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any) -> Path:
        raise OSError("no space left on device")

    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path, max_steps=1), tiny_llama)
    watch = ForgettingCallback(watched, every=2, trainer=trainer)
    with monkeypatch.context() as patch:
        patch.setattr(ForgettingCallback, "write_report", full)
        with pytest.warns(UserWarning, match="no space left"):
            assert trainer.train().global_step == 1
    assert watch.write_report() == tmp_path / "forgetting" / "report.html"


def test_it_stops_when_a_task_is_forgotten(
    texts: str, watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(model_of(tiny_llama, lora=False), settings(tmp_path, learning_rate=0.3), tiny_llama)
    watch = ForgettingCallback([texts, *watched], every=2, trainer=trainer, stop=True)
    with pytest.warns(UserWarning, match=r"training stops at step \d, since it has forgotten prose \("):
        trainer.train()
    assert trainer.state.global_step < 6
    assert watch.verdicts["prose"]["decision"] == "forgotten"
    last = [row for row in trainer.state.log_history if "forgetting/forgotten" in row][-1]
    assert last["forgetting/forgotten"] == 1
    assert last["forgetting/prose/difference"] > 0  # a loss, as people write it
    first = trainer.state.log_history[0]
    assert last["forgetting/prose/loss"] == pytest.approx(
        first["forgetting/prose/loss"] + last["forgetting/prose/difference"]
    )


def test_it_marks_the_last_checkpoint_at_which_nothing_is_forgotten(
    texts: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(
        model_of(tiny_llama, lora=False),
        settings(
            tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1, max_steps=4, learning_rate=0.3
        ),
        tiny_llama,
    )
    watch = ForgettingCallback(texts, every=100, trainer=trainer, best=True)
    trainer.train()
    assert watch.verdicts["prose"]["decision"] == "forgotten"
    counts = {
        row["step"]: row["forgetting/forgotten"]
        for row in trainer.state.log_history
        if "forgetting/forgotten" in row
    }
    best = max(step for step, count in counts.items() if not count)
    assert best < 4
    assert trainer.state.best_global_step == best
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert (tmp_path / f"checkpoint-{best}").is_dir()
    if best < 3:
        assert not (tmp_path / "checkpoint-3").exists()
    results = json.loads((tmp_path / "forgetting" / "results.json").read_text())
    assert [stage["name"] for stage in results["stages"]] == [
        "00-base",
        *(f"0{k}-step-{k}" for k in (1, 2, 3, 4)),
    ]


class _SavesLate(TrainerCallback):  # type: ignore[misc]
    """Has a checkpoint saved after the callback's turn."""

    def __init__(self) -> None:
        self.marked: list[str | None] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.marked.append(state.best_model_checkpoint)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_save = state.global_step == 2
        return control


def test_it_marks_a_checkpoint_that_another_callback_saves(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    arguments = settings(tmp_path, save_strategy="epoch", max_steps=3, learning_rate=0.0)
    trainer = trainer_of(model_of(tiny_llama), arguments, tiny_llama)
    ForgettingCallback(watched, every=100, trainer=trainer, best=True)
    late = _SavesLate()
    trainer.add_callback(late)
    trainer.train()
    assert late.marked == [None, None, str(tmp_path / "checkpoint-2")]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-3")


def test_without_a_trainer_values_are_kept_in_the_trainers_state(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    watch = ForgettingCallback(watched, every=3)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama, callbacks=[watch])
    trainer.train()
    rows = [row for row in trainer.state.log_history if "forgetting/size/accuracy" in row]
    assert [row["step"] for row in rows] == [0, 3, 6]
    assert watch.path == tmp_path / "forgetting"
