"""The peers: lm-eval's Hugging Face model to score, TRL's SFTTrainer to train."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.workload import Workload
from forgetmenot.prompting import Encoded

Question = tuple[str, list[str]]
"""A prompt and its candidates."""
Lesson = tuple[str, str]
"""A prompt and its answer."""

SAME_ORDER = {"train_sampling_strategy": "sequential", "logging_strategy": "steps", "logging_steps": 1}
"""Flags with which TRL takes the examples as they come, and logs every loss."""


def quiet() -> None:
    """Keep the peers' logs, bars and notices off the screen: they would be in the timings too."""
    disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers|trl|peft|torch")


class LmEval:
    """Scores as lm-eval does: batches padded to the longest, choices of one token answered together."""

    def __init__(self, model: Any, tokenizer: Any, *, dtype: str, batch_size: int) -> None:
        mixed = {"mixed_precision_dtype": "bfloat16"} if dtype == "bf16" else {}
        self._model = HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, logits_cache=True, **mixed
        )

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """Log-likelihood of each question's candidates, in nats, from their texts."""
        requests = [
            Instance(request_type="loglikelihood", doc={}, arguments=(prompt, answer), idx=0)
            for prompt, answers in questions
            for answer in answers
        ]
        self._model.model.eval()
        flat = iter(value for value, _ in self._model.loglikelihood(requests, disable_tqdm=True))
        return [[next(flat) for _ in answers] for _, answers in questions]


def sft_trainer(
    workload: Workload, model: Any, tokenizer: Any, data: Dataset, flags: Mapping[str, Any], folder: Path
) -> SFTTrainer:
    """TRL's trainer with the workload's settings, the best flags common to all, and one choice of the others.

    Args:
        workload: Batch size, optimizer, schedule.
        model: With the parameters that learn already chosen.
        tokenizer: The model's.
        data: From `as_tokens` or `as_texts`, for one epoch.
        flags: Fields of `SFTConfig`; the batch is divided into parts of `per_device_train_batch_size`.
        folder: TRL wants one.
    """
    training, device = workload.training, next(model.parameters()).device
    steps = -(-len(data) // training.batch_size)
    config = {
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": round(training.warmup_ratio * steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "num_train_epochs": 1,
        "gradient_accumulation_steps": training.batch_size // flags["per_device_train_batch_size"],
        "max_length": None if flags.get("padding_free") else training.max_length,
        "bf16": workload.dtype == "bf16",
        "use_cpu": device.type == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataset_kwargs": {"skip_prepare_dataset": "labels" in data.column_names},
        "seed": workload.seed,
    }
    args = SFTConfig(str(folder), **config | workload.peers.trl.always | dict(flags))
    trainer = SFTTrainer(model, args, train_dataset=data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def as_tokens(examples: Sequence[Encoded]) -> Dataset:
    """Our tokens as TRL's data set, of which the answers alone carry a loss."""
    rows = []
    for one in examples:
        tokens, start = list(one.answer.tokens), one.answer.start
        rows.append({"input_ids": tokens, "labels": [-100] * start + tokens[start:]})
    return Dataset.from_list(rows)


def as_texts(lessons: Sequence[Lesson]) -> Dataset:
    """Prompts and answers as TRL's data set: TRL tokenizes them and adds EOS."""
    return Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer in lessons])


def first_loss(trainer: SFTTrainer) -> float:
    """The loss of the first step that a trainer logged, in nats per token."""
    return float(next(row["loss"] for row in trainer.state.log_history if "loss" in row))


def keeps_order(flags: Mapping[str, Any]) -> bool:
    """Whether TRL takes the examples as they come."""
    return flags.get("train_sampling_strategy") == "sequential"
