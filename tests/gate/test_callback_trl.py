"""The callback within TRL's trainers: each trains and logs as without it, with LoRA and dropout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from forgetmenot.gate.callback import ForgettingCallback
from tests.gate.training import LORA, TEXTS, assert_same_training, logged, model_of, state_of

SETTINGS: dict[str, Any] = {
    "max_steps": 4,
    "learning_rate": 0.01,
    "logging_steps": 2,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "gradient_checkpointing": True,
    "disable_tqdm": True,
    "per_device_train_batch_size": 4,
}


def _sft(folder: Path, output: Path, **more: Any) -> Any:
    arguments = SFTConfig(str(output), **SETTINGS, max_length=32, **more)
    return _made(SFTTrainer, folder, arguments, Dataset.from_dict({"text": TEXTS}))


def _dpo(folder: Path, output: Path, **more: Any) -> Any:
    arguments = DPOConfig(str(output), **SETTINGS, max_length=32, **more)
    rows = [dict(zip(("prompt", "chosen", "rejected"), (t, " yes", " no"), strict=True)) for t in TEXTS]
    return _made(DPOTrainer, folder, arguments, Dataset.from_list(rows))


def _grpo(folder: Path, output: Path, **more: Any) -> Any:
    settings = {"num_generations": 2, "max_completion_length": 4, "log_completions": True}
    arguments = GRPOConfig(str(output), **SETTINGS, **settings, **more)
    rows = Dataset.from_dict({"prompt": TEXTS})
    return _made(GRPOTrainer, folder, arguments, rows, reward_funcs=[_vowels])


def _vowels(completions: list[str], **_: Any) -> list[float]:
    return [float(sum(letter in "aeiou" for letter in one)) for one in completions]


def _made(kind: Any, folder: Path, arguments: Any, rows: Dataset, **more: Any) -> Any:
    return kind(
        model_of(folder, lora=False),
        args=arguments,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LORA,
        **more,
    )


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "autocast"])
@pytest.mark.parametrize("make", [_sft, _dpo, _grpo], ids=["sft", "dpo", "grpo"])
def test_a_trl_trainer_trains_and_logs_as_without_it(
    make: Callable[..., Any], bf16: bool, tiny_tasks: dict[str, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    def trained(watch: bool) -> Any:
        torch.manual_seed(0)
        trainer = make(tiny_llama, tmp_path / str(watch), bf16=bf16)
        if watch:
            tasks = [str(tiny_tasks["animal"]), str(tiny_tasks["size"])]
            callback = ForgettingCallback(tasks, every=1, trainer=trainer)
        trainer.train()
        if watch:
            assert callback.path is not None
            assert (callback.path / "report.html").is_file()
        return trainer

    alone = trained(False)
    state, log = state_of(alone), logged(alone)
    with_it = trained(True)
    assert_same_training(with_it, state, log)
    steps = [row["step"] for row in with_it.state.log_history if "forgetting/animal/accuracy" in row]
    assert steps == [0, 1, 2, 3, 4]
    shown = sorted(file.name for file in (tmp_path / "True").glob("completions/*"))
    assert bool(shown) == (make is _grpo)
    assert shown == sorted(file.name for file in (tmp_path / "False").glob("completions/*"))
