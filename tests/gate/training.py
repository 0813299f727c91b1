"""A tiny model in training, with dropout and activation checkpointing, so that random states matter."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from forgetmenot.evaluation.evaluate import evaluate

LORA = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM")
TEXTS = [f"Word: {word} {k}\nKind: {word[::-1]}" for k in range(8) for word in ("tabby", "rose", "hill")]


def model_of(folder: Path, *, lora: bool = True, dtype: torch.dtype = torch.float32) -> Any:
    """The model with dropout in its attention, and perhaps an adapter with dropout on it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attention_dropout=0.2)
    return get_peft_model(model, LORA) if lora else model


def settings(output: Path, **more: Any) -> TrainingArguments:
    """Six steps of four texts."""
    return TrainingArguments(
        str(output),
        **{
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 0.02,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "gradient_checkpointing": True,
            "disable_tqdm": True,
            "seed": 1,
            **more,
        },
    )


def trainer_of(model: Any, arguments: TrainingArguments, folder: Path, **more: Any) -> Trainer:
    """A bare trainer on `TEXTS`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(TEXTS)["input_ids"]]
    return Trainer(
        model, arguments, train_dataset=rows, data_collator=_collated, processing_class=tokenizer, **more
    )


def _collated(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    shortest = min(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"][:shortest] for row in rows])
    return {"input_ids": ids, "labels": ids}


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All tensors that training goes on from: weights, buffers, the optimizer's, and the random states."""
    found = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    for k, moments in trainer.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{k}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    found["random.torch"] = torch.get_rng_state()
    found["random.numpy"] = torch.tensor(_numpy_state())
    found["random.python"] = torch.tensor(random.getstate()[1])
    return found


def _numpy_state() -> list[int]:
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    return [*map(int, state["state"]["key"]), int(state["state"]["pos"])]


def logged(trainer: Trainer) -> list[dict[str, Any]]:
    """What the trainer itself logged, without what the clock says."""
    return [
        {key: value for key, value in row.items() if not key.endswith(("_runtime", "_per_second", "_time"))}
        for row in trainer.state.log_history
        if not any(key.startswith("forgetting/") for key in row)
    ]


def assert_same_training(one: Trainer, state: dict[str, torch.Tensor], log: list[dict[str, Any]]) -> None:
    """A training has ended in a state to the last bit, and has logged the same."""
    other = state_of(one)
    assert other.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(value, other[name]), name
    assert logged(one) == log


def failing(*_: Any) -> Any:
    """An evaluation that runs out of memory."""
    raise torch.OutOfMemoryError("no room")


def failing_later(task: str = "size") -> Callable[..., Any]:
    """One that runs out of it on a task from the second time on, within the engine."""
    asked: list[str] = []

    def fails(learner: Any, method: Any, scored: Any, *more: Any) -> Any:
        asked.append(scored.task.name)
        if scored.task.name == task and asked.count(task) > 1:
            with learner._computing():
                learner.model.eval()
                raise torch.OutOfMemoryError(f"no room for {len(asked)} bytes\nand so on")
        return evaluate(learner, method, scored, *more)

    return fails


def drawing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which first draws from every random state there is, as something that is asked may."""

    def draws(*given: Any, **named: Any) -> Any:
        torch.rand(3)
        np.random.rand(3)
        random.random()
        return function(*given, **named)

    return draws
