"""A profile of a run's second stage, training and scoring, on CPU.

    python -m benchmarks.profile_run --data-dir DATA --model MODEL [--adapter full]

Runs `fmn run` on SST-2 and MRPC under torch.profiler while the second stage trains, scores and is committed.
"Arithmetic" is the time inside the kernels of the model's own mathematics: matrix products, attention, norms,
activations, embeddings, losses and their gradients, clipping and AdamW. Copies, casts, comparisons (masks),
views and the dispatch of operators do not count, nor does any Python.
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

import forgetmenot
from benchmarks.around import watched
from forgetmenot.runs import loop

KERNELS = {
    "matrix products": ("mm", "addmm", "mkldnn", "mkl"),
    "attention": ("_scaled_dot_product", "bmm", "_softmax"),
    "optimizer and clipping": ("_fused_adamw", "_foreach", "linalg_vector_norm"),
    "norms, activations, loss, sums": (
        *(
            "mul",
            "add",
            "sub",
            "div",
            "neg",
            "pow",
            "rsqrt",
            "mean",
            "sum",
            "silu",
            "gelu",
            "tanh",
            "sigmoid",
        ),
        *("cos", "sin", "cat", "embedding", "index", "logsumexp", "exp", "log", "softmax", "rms_norm"),
    ),
}
COPIES = ("copy_", "_to_copy", "clone", "contiguous", "fill_", "zero_", "constant_pad")


def main() -> None:
    """Run, profile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", choices=("lora", "full"), default="lora")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--training-limit", type=int, default=2000)
    parser.add_argument("--evaluation-limit", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "model": given.model,
            "tasks": "sst2,mrpc",
            "data_dir": given.data_dir,
            "adapter.kind": given.adapter,
            "training.limit": given.training_limit,
            "training.precision": given.precision,
            "evaluation.limit": given.evaluation_limit,
            "checkpoints": "none",
            "output": str(Path(folder) / "run"),
        }
        measured = Measured()
        with measured.second_stage():
            forgetmenot.run(config, fresh=True)
    what = f"{Path(given.model).name}, {given.adapter}, {given.precision}"
    print_table(measured, what)


class Measured:
    """Seconds of one stage: all of it, in each operator, and around the model."""

    def __init__(self) -> None:
        self.total = 0.0
        self.operators: dict[str, float] = {}
        self.parts: dict[str, float] = {}

    @contextmanager
    def second_stage(self) -> Iterator[None]:
        """Profile the second stage of the run inside: the first has warmed everything up."""
        original = loop.Loop._train_and_score

        def profiled(one: loop.Loop, stage: Any, *stages: str) -> None:
            if stage.number != 2:
                return original(one, stage, *stages)
            with watched() as self.parts, profile(activities=[ProfilerActivity.CPU]) as recorded:
                began = time.perf_counter()
                original(one, stage, *stages)
                self.total = time.perf_counter() - began
            self.operators = self_seconds(recorded.profiler.kineto_results.events())
            return None

        with patch.object(loop.Loop, "_train_and_score", profiled):
            yield

    def kernels(self) -> dict[str, float]:
        """Seconds of each kind of arithmetic, of copies, and of all other operators."""
        seconds = dict.fromkeys([*KERNELS, "copies and casts", "views, masks and dispatch"], 0.0)
        for key, spent in self.operators.items():
            seconds[kind_of(key)] += spent
        return seconds


def self_seconds(events: Iterable[Any]) -> dict[str, float]:
    """Seconds inside each operator and outside those that it calls, by name.

    From the profiler's raw events: its own averages take minutes for the many small operators of a stage.
    """
    threads: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for event in events:
        begin = event.start_ns()
        threads[event.start_thread_id()].append((begin, -(begin + event.duration_ns()), event.name()))
    spent: dict[str, float] = defaultdict(float)
    for spans in threads.values():
        within: list[tuple[int, str]] = []  # the operators that are running: where each ends
        for begin, negative_end, name in sorted(spans):
            end = -negative_end
            while within and within[-1][0] <= begin:
                within.pop()
            spent[name] += (end - begin) / 1e9
            if within:
                spent[within[-1][1]] -= (end - begin) / 1e9
            within.append((end, name))
    return spent


def kind_of(operator: str) -> str:
    """Which kind of work an operator of the profiler is: aten::addmm → matrix products."""
    name = operator.removeprefix("aten::")
    if operator.startswith("aten::"):
        if name.startswith(COPIES):
            return "copies and casts"
        for kind, starts in KERNELS.items():
            if name.startswith(starts):
                return kind
    return "views, masks and dispatch"


def print_table(measured: Measured, what: str) -> None:
    """Print shares of the stage's time, arithmetic first."""
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table("work", "seconds", "share", title=f"second stage of a run: {what}; {machine}")
    seconds = measured.kernels()
    arithmetic = sum(seconds[kind] for kind in KERNELS)
    python = measured.total - sum(seconds.values())
    rows = [(kind, seconds[kind]) for kind in KERNELS]
    rows += [("arithmetic", arithmetic)]
    rows += [(kind, spent) for kind, spent in seconds.items() if kind not in KERNELS]
    rows += [("Python and everything else", python)]
    rows += [(f"  (inside the last rows) {part}", spent) for part, spent in measured.parts.items()]
    rows += [("the stage", measured.total)]
    for name, spent in rows:
        style = "bold" if name == "arithmetic" else None
        table.add_row(name, f"{spent:.2f}", f"{spent / measured.total:.1%}", style=style)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
