"""The speed of bf16: times scoring and a training step in fp32 and bf16, for several widths.

    python benchmarks/precision.py

Random Llamas of four layers over random prompts of about 30 tokens, packed as the engine packs them. Prints
the median of five rounds; the ratio is fp32 / bf16, so that above 1 bf16 is faster.
"""

import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetmenot.engine.attention import use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.precision import Precision
from forgetmenot.prompting import TokenSequence

WIDTHS = (128, 256, 512, 768)
VOCABULARY, PROMPTS, ROUNDS = 4096, 64, 5


def main() -> None:
    """Time every width and print the table."""
    sequences = random_prompts()
    table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in (
        "width",
        "score fp32 (s)",
        "score bf16 (s)",
        "ratio",
        "train fp32 (s)",
        "train bf16 (s)",
        "ratio",
    ):
        table.add_column(name, justify="right")
    for width in WIDTHS:
        learners = {precision: learner(width, precision) for precision in ("fp32", "bf16")}
        cells = [str(width)]
        for work in (score, train):
            fp32, bf16 = (timed(partial(work, one, sequences)) for one in learners.values())
            cells += [f"{fp32:.3f}", f"{bf16:.3f}", f"{fp32 / bf16:.2f}"]
        table.add_row(*cells)
    Console().print(table)


def random_prompts() -> list[TokenSequence]:
    """Sequences with a common head of eight tokens."""
    rng = np.random.default_rng(0)
    head = rng.integers(2, VOCABULARY, 8).tolist()
    tails = [rng.integers(2, VOCABULARY, rng.integers(10, 36)).tolist() for _ in range(PROMPTS)]
    return [TokenSequence((*head, *tail), len(head) + len(tail) - 2) for tail in tails]


def learner(width: int, precision: Precision) -> Learner:
    """A random Llama in fp32 whose activations have the precision."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 16 * 16,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    use_attention(model, "chunked")
    return Learner(model, tokenizer=None, budget=node_budget("cpu", "chunked"), precision=precision)


def score(learner: Learner, sequences: list[TokenSequence]) -> None:
    """Log-likelihoods without gradients."""
    learner.log_likelihoods(sequences)


def train(learner: Learner, sequences: list[TokenSequence]) -> None:
    """Forward and backward over a batch."""
    learner.model.train()
    for indices in learner.cut(sequences):
        learner.forward([sequences[k] for k in indices]).sum().backward()  # type: ignore[no-untyped-call]
    learner.model.zero_grad()


def timed(work: Callable[[], None]) -> float:
    """The median seconds of some rounds, after one that does not count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


if __name__ == "__main__":
    main()
