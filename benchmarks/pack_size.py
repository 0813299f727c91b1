"""The best size of a pack on CPU: times scoring and training for packs of growing size.

    python benchmarks/pack_size.py [--precision bf16] [--threads 2]

Random Llamas of two layers over sentences of 24 tokens behind a common head. A call costs the same however
few nodes a pack has; attention costs the square of them under a dense mask, and in chunks the same for each.
Prints microseconds per node and layer, the least of several rounds; the least of a row is marked. One thread
is timed by the CPU's clock, more of them by the wall's. `node_budget` follows from it.
"""

import argparse
import platform
import time
from functools import partial
from itertools import product

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetmenot.engine.attention import Attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import Precision
from forgetmenot.prompting import TokenSequence

SHAPES = {  # width, MLP width, heads, key-value heads: base-4m, SmolLM2-135M, Qwen2.5-0.5B
    "base-4m": (256, 688, 8, 4),
    "SmolLM2-135M": (576, 1536, 9, 3),
    "Qwen2.5-0.5B": (896, 4864, 14, 2),
}
SIZES = (128, 256, 512, 1024, 2048)
HEAD, SENTENCE, LAYERS, ROUNDS = 6, 24, 2, 15


def main() -> None:
    """Time every shape and size, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dimensions", nargs="+", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    precision: Precision = arguments.precision
    torch.set_num_threads(arguments.threads)
    table = Table(
        title=f"µs per node and layer, {precision}; {platform.machine()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}"
    )
    for name in ("dimensions", "work", "attention", *map(str, SIZES)):
        table.add_column(name, justify="right")
    for name in arguments.dimensions:
        learner = random_learner(*SHAPES[name], precision)
        ways: tuple[Attention, ...] = ("dense", "chunked")
        for work, attention in product((score, train), ways):
            use_attention(learner.model, attention)
            least = least_seconds([partial(work, learner, sentences(n)) for n in SIZES])
            per_node = [seconds / n / LAYERS for seconds, n in zip(least, SIZES, strict=True)]
            best = min(per_node)
            cells = [f"[bold]{t * 1e6:.1f}[/bold]" if t == best else f"{t * 1e6:.1f}" for t in per_node]
            table.add_row(name, work.__name__, attention, *cells)
    Console(width=130).print(table)


def random_learner(width: int, mlp: int, heads: int, kv_heads: int, precision: Precision) -> Learner:
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
    return Learner(model, tokenizer=None, budget=SIZES[-1], precision=precision)


def sentences(nodes: int) -> list[TokenSequence]:
    """Sequences behind a common head whose trie has so many nodes."""
    rng = np.random.default_rng(0)
    head, left = tuple(rng.integers(0, 512, HEAD).tolist()), nodes - HEAD
    made: list[TokenSequence] = []
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


def least_seconds(works: list[partial[None]]) -> list[float]:
    """The least time of each over some rounds, in turn, after one round that does not count."""
    seconds = [[seconds_of(work) for work in works] for _ in range(ROUNDS + 1)]
    return [min(column) for column in zip(*seconds[1:], strict=True)]


def seconds_of(work: partial[None]) -> float:
    """The time of one call: the CPU's, which several threads would add up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    work()
    return clock() - began


if __name__ == "__main__":
    main()
