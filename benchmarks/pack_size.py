"""How large should a pack be on CPU? Times scoring and training for packs of growing size, for several widths.

    python benchmarks/pack_size.py [--precision bf16]

Random Llamas of two layers over sentences of 24 tokens behind a common head. Attention costs the square of
the nodes in a pack; a call costs the same however few they are: in between lies the best size. Prints CPU
microseconds per node and layer, the least of several rounds; the least of a row is marked, and so is what
`node_budget` chooses.
"""

import argparse
import platform
import time
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetmenot.engine import Learner, node_budget
from forgetmenot.prompting import TokenSequence

SHAPES = {  # width, MLP width, heads, key-value heads: base-4m, SmolLM2-135M, Qwen2.5-0.5B
    "base-4m": (256, 688, 8, 4),
    "SmolLM2-135M": (576, 1536, 9, 3),
    "Qwen2.5-0.5B": (896, 4864, 14, 2),
}
SIZES = (64, 96, 128, 192, 256, 384, 512)
HEAD, SENTENCE, LAYERS, ROUNDS = 6, 24, 2, 5


def main() -> None:
    """Time every shape and size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    precision = parser.parse_args().precision
    table = Table(
        title=f"µs per node and layer, {precision}; {platform.machine()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}"
    )
    for name in ("dimensions", "work", *map(str, SIZES), "chosen"):
        table.add_column(name, justify="right")
    for name, shape in SHAPES.items():
        learner = random_learner(*shape, precision)
        chosen = node_budget(learner.model.config, torch.device("cpu"))
        for work in (score, train):
            per_node = [least_seconds(partial(work, learner, sentences(n))) / n / LAYERS for n in SIZES]
            best = min(per_node)
            cells = [f"[bold]{t * 1e6:.1f}[/bold]" if t == best else f"{t * 1e6:.1f}" for t in per_node]
            table.add_row(name, work.__name__, *cells, str(chosen))
    Console(width=130).print(table)


def random_learner(width: int, mlp: int, heads: int, kv_heads: int, precision: str) -> Learner:
    """A Llama with random weights and a small vocabulary, so that what is timed is its layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return Learner(model, tokenizer=None, budget=0, precision=precision)  # type: ignore[arg-type]


def sentences(nodes: int) -> list[TokenSequence]:
    """Sequences behind a common head whose trie has so many nodes."""
    rng = np.random.default_rng(0)
    head, left, made = tuple(rng.integers(0, 512, HEAD).tolist()), nodes - HEAD, []
    while left > 0:
        own = min(SENTENCE, left)
        tail = (512 - 1 - len(made), *rng.integers(0, 512, own).tolist())  # the first tells them apart
        made.append(TokenSequence((*head, *tail), HEAD + own))
        left -= own
    return made


def score(learner: Learner, sequences: list[TokenSequence]) -> None:
    """One pack without gradients."""
    learner.model.eval()
    with torch.no_grad():
        learner.forward(sequences)


def train(learner: Learner, sequences: list[TokenSequence]) -> None:
    """One pack forward and backward."""
    learner.model.train()
    learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]


def least_seconds(work: partial[None]) -> float:
    """The least CPU time of some rounds, after one that does not count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
