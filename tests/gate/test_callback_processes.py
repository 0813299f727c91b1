"""The callback in a training of two processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.gate import watcher as watcher_module
from forgetmenot.gate.callback import ForgettingCallback
from tests.gate.training import (
    failing_later,
    model_of,
    settings,
    state_of,
    trainer_of,
)


@pytest.mark.slow
def test_of_two_processes_one_asks_and_both_obey(
    texts: str,
    watched: list[str],
    tiny_llama: Path,
    tmp_path: Path,
    in_processes: Callable[..., list[Any]],
) -> None:
    def train(watch: bool) -> Any:
        arguments = settings(tmp_path / str(watch), learning_rate=0.3)
        trainer = trainer_of(model_of(tiny_llama, lora=False), arguments, tiny_llama)
        callback = None
        if watch:
            callback = ForgettingCallback([texts, *watched], every=2, trainer=trainer, stop=True)
        trainer.train()
        assert ranks.world_size() == 2
        ended = [row for row in trainer.state.log_history if "forgetting/forgotten" in row]
        return (
            trainer.state.global_step,
            ended,
            callback.verdicts if callback else {},
            trainer.model.state_dict(),
        )

    with_it = in_processes(lambda: train(True))
    alone = in_processes(lambda: train(False))
    (steps, ended, verdicts, _), (others, other_ended, other_verdicts, _) = with_it
    assert steps == others < 6
    assert ended == other_ended
    assert ended[-1]["forgetting/forgotten"] == 1
    assert verdicts == other_verdicts
    assert alone[0][0] == 6
    assert (tmp_path / "True" / "forgetting" / "report.html").is_file()


@pytest.mark.slow
def test_in_two_processes_training_is_the_same_to_the_bit_and_a_failing_base_ends_both(
    watched: list[str], tiny_llama: Path, tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    def train(watch: bool, fail: str = "") -> Any:
        trainer = trainer_of(model_of(tiny_llama), settings(tmp_path / str(watch)), tiny_llama)
        if watch:
            ForgettingCallback(watched, every=2, trainer=trainer)
        if not fail:
            trainer.train()
            return state_of(trainer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watcher_module, "evaluate", failing_later())
            if fail == "base":
                patch.setattr(watcher_module, "evaluate", failing)
                with pytest.raises(UserError, match="the base cannot be asked"):
                    trainer.train()
                return None
            trainer.train()
            return state_of(trainer)

    with_it, alone = in_processes(lambda: train(True)), in_processes(lambda: train(False))
    failing = in_processes(lambda: train(True, "later"))
    assert in_processes(lambda: train(True, "base")) == [None, None]
    for one, other, third in zip(with_it, alone, failing, strict=True):
        assert one.keys() == other.keys()
        assert all(
            torch.equal(one[name], other[name]) and torch.equal(one[name], third[name]) for name in one
        )
