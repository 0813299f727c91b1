"""The callback within a bare `Trainer`: it disturbs nothing, and what it says is that of a check."""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, TrainerCallback
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.gate import callback as callback_module
from forgetmenot.gate import watcher as watcher_module
from forgetmenot.gate.callback import ForgettingCallback
from forgetmenot.gate.opened import opened_side
from forgetmenot.gate.panel import Panel, answers_of
from forgetmenot.gate.sides import find_side
from forgetmenot.record.predictions import read_predictions
from forgetmenot.report.screen import Screen
from forgetmenot.runs.display import Display
from tests.evaluation.test_benchmarks import CHOICES, KINDS, rows
from tests.gate.training import (
    assert_same_training,
    drawing,
    failing_later,
    logged,
    model_of,
    settings,
    state_of,
    trainer_of,
)


@pytest.mark.parametrize(
    ("lora", "dtype", "more"),
    [
        (True, torch.float32, {}),
        (True, torch.float32, {"bf16": True}),
        (True, torch.bfloat16, {}),
        (False, torch.float32, {"gradient_accumulation_steps": 2}),
        (False, torch.float32, {"bf16": True, "gradient_checkpointing": False}),
        (False, torch.bfloat16, {}),
    ],
    ids=["lora-fp32", "lora-autocast", "lora-bf16", "full-fp32", "full-autocast", "full-bf16"],
)
def test_training_is_the_same_to_the_bit_with_it(
    lora: bool,
    dtype: torch.dtype,
    more: dict[str, Any],
    watched: list[str],
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place, name in ((watcher_module, "evaluate"), (callback_module, "load_watcher"), (Panel, "scored")):
        monkeypatch.setattr(place, name, drawing(getattr(place, name)))

    def trained(watch: bool) -> Any:
        trainer = trainer_of(
            model_of(tiny_llama, lora=lora, dtype=dtype), settings(tmp_path / str(watch), **more), tiny_llama
        )
        if watch:
            ForgettingCallback(watched, every=2, trainer=trainer)
        trainer.train()
        return trainer

    alone = trained(False)
    state, log = state_of(alone), logged(alone)
    assert any(row.get("loss") for row in log)
    with_it = trained(True)
    assert_same_training(with_it, state, log)
    steps = [row["step"] for row in with_it.state.log_history if "forgetting/animal/accuracy" in row]
    assert steps == [0, 2, 4, 6]


def test_what_lm_eval_asks_is_watched_and_disturbs_nothing(
    make_benchmark: Callable[..., Path], tiny_llama: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    tasks = [str(make_benchmark("choice", rows(20), **CHOICES))]
    tasks.append(str(make_benchmark("written", rows(20), **KINDS["written"])))
    alone = trainer_of(model_of(tiny_llama), settings(tmp_path / "alone"), tiny_llama)
    alone.train()
    state, log = state_of(alone), logged(alone)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    watch = ForgettingCallback(tasks, every=3, trainer=trainer)
    trainer.train()
    assert_same_training(trainer, state, log)
    assert watch.verdicts.keys() == {"choice", "written"}
    assert all(one["after"] is not None for one in watch.verdicts.values())


@pytest.mark.parametrize("lora", [True, False])
def test_its_answers_are_those_of_a_check_on_the_saved_checkpoints(
    lora: bool, watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(
        model_of(tiny_llama, lora=lora),
        settings(tmp_path, save_strategy="steps", save_steps=3),
        tiny_llama,
    )
    watch = ForgettingCallback(watched, every=3, trainer=trainer)
    trainer.train()
    stages = {"00-base": str(tiny_llama), "01-step-3": "checkpoint-3", "02-step-6": "checkpoint-6"}
    apart = []
    for stage, folder in stages.items():
        here = read_predictions(tmp_path / "forgetting" / "stages" / stage / "predictions.parquet")
        side = find_side(str(tmp_path / folder))
        display = Display(Screen(quiet=True))
        with opened_side(side, TrainingSettings(precision="fp32"), display) as there:
            asked = answers_of(there, watch._watcher.panel.scored(there), display)
        assert list(here) == list(asked) == ["animal", "size"]
        for task, answers in asked.items():
            assert here[task].predicted == answers.predicted
            rows = zip(here[task].log_likelihoods, answers.log_likelihoods, strict=True)
            apart += [abs(a - b) for one, other in rows for a, b in zip(one or [], other or [], strict=True)]
    assert len(apart) == 3 * 24 * (2 + 3)
    assert max(apart) < 1e-4


class _Spy(TrainerCallback):  # type: ignore[misc]
    """Sees what the model is like after the callback's turn."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.append(_traits(model))

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.append(_traits(model))


def _traits(model: Any) -> Any:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [module.training for module in model.modules()],
        [len(getattr(module, kind)) for module in model.modules() for kind in hooks],
        [getattr(vars(module).get("forward"), "__qualname__", None) for module in model.modules()],
        [(p.requires_grad, p.dtype, p.grad is None) for p in model.parameters()],
        model.config.to_dict(),
        model.config._attn_implementation,
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        [getattr(module, "merged_adapters", None) for module in model.modules()],
    )


@pytest.fixture
def kernel_without_masks() -> Iterator[str]:
    """The name of a kernel that is refused a trie's mask, as Flash Attention's would be."""

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **more: Any) -> Any:
        if attention_mask is not None and attention_mask.is_floating_point():
            raise ValueError("no masks")
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)

    AttentionInterface.register("maskless", attend)
    AttentionMaskInterface.register("maskless", sdpa_mask)
    yield "maskless"
    del AttentionInterface._global_mapping["maskless"], AttentionMaskInterface._global_mapping["maskless"]


@pytest.mark.parametrize("kernel", ["sdpa", "eager", "maskless"])
@pytest.mark.usefixtures("kernel_without_masks")
def test_the_model_is_left_as_it_was(
    kernel: str, watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traits(watch: bool, fail: bool = False) -> list[Any]:
        model = model_of(tiny_llama)
        model.set_attn_implementation(kernel)
        spy = _Spy()
        trainer = trainer_of(model, settings(tmp_path, bf16=True), tiny_llama)
        if watch:
            ForgettingCallback(watched, every=1, trainer=trainer)
        if fail:
            monkeypatch.setattr(watcher_module, "evaluate", failing_later())
        trainer.add_callback(spy)
        addresses = [p.data_ptr() for p in model.parameters()]
        model.base_model.model.model.layers[0].eval()  # a mode of its own
        trainer.train()
        assert [p.data_ptr() for p in model.parameters()] == addresses
        return spy.seen

    undisturbed = traits(False)
    assert traits(True) == undisturbed
    with pytest.warns(UserWarning, match="has no score"):
        assert traits(True, fail=True) == undisturbed


def test_it_may_be_added_twice_and_holds_no_model_afterwards(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    watch = ForgettingCallback(watched, every=3, trainer=trainer)
    trainer.add_callback(watch)  # as other callbacks that take a trainer want it
    trainer.train()
    rows = [row["step"] for row in trainer.state.log_history if "forgetting/size/accuracy" in row]
    assert rows == [0, 3, 6]
    model = weakref.ref(trainer.model)
    del trainer
    gc.collect()
    assert model() is None
    assert watch.verdicts.keys() == {"animal", "size"}
