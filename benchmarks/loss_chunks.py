"""Gain and cost of a bound on the logits: peak memory and CPU time of a training step, by bound.

    python -m benchmarks.loss_chunks

A random Llama of two layers, width 256 and the vocabulary and tied embeddings of Qwen2.5-0.5B, LoRA, and one
pack in which every position predicts: the worst case. Memory is what the process adds at its peak to what it
held before the step (Linux only); CPU time the median of two steps, after one that does not count.
"""

import platform
import time
from statistics import median

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.resident import added_at_peak
from forgetmenot.engine import head as head_module
from forgetmenot.engine.learner import Learner
from forgetmenot.prompting import TokenSequence

VOCABULARY, WIDTH, NODES, STEPS = 151_936, 256, 512, 2
BOUNDS = (2**26, 2**28, 2**40)


def main() -> None:
    """Measure every bound and print the table."""
    model, sequences = learner(), random_texts()
    table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in ("bound (MiB)", "chunks", "peak (MiB)", "CPU time (s)"):
        table.add_column(name, justify="right")
    for bound in BOUNDS:
        head_module.LOGITS_BYTES = bound
        rows = len(head_module.chunks(NODES, VOCABULARY))
        peaks, seconds = zip(*(step(model, sequences) for _ in range(STEPS + 1)), strict=True)
        limit = f"{bound >> 20}" if rows > 1 else "none"
        table.add_row(limit, str(rows), f"{max(peaks):.0f}", f"{median(seconds[1:]):.2f}")
    Console().print(table)


def learner() -> Learner:
    """A random model with LoRA on its attention, in training."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(target_modules=["q_proj"]))
    return Learner(model.train(), tokenizer=None, budget=NODES)


def random_texts() -> list[TokenSequence]:
    """Texts that fill one pack and share nothing."""
    rng = np.random.default_rng(0)
    length, count = 64, NODES // 64
    return [TokenSequence(tuple(rng.integers(2, VOCABULARY, length + 1).tolist()), 1) for _ in range(count)]


def step(learner: Learner, sequences: list[TokenSequence]) -> tuple[float, float]:
    """Forward and backward; the memory added at the peak in MiB, and the CPU seconds."""

    def work() -> None:
        learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
        learner.model.zero_grad()

    began = time.process_time()
    peak = added_at_peak(work, learner.device)
    return peak, time.process_time() - began


if __name__ == "__main__":
    main()
