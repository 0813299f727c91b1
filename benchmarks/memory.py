"""Peak memory of training: what one epoch adds to the model's own, against TRL's SFTTrainer.

    python -m benchmarks.memory --data-dir DATA --rows small/0

Each side trains in a fresh process, TRL once with every choice of the workload: the one that needs least is
what we are compared with. That both learn the same is what `benchmarks.training` shows.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Bench, run_command
from benchmarks.peers import as_tokens, quiet, sft_trainer
from benchmarks.resident import added_at_peak
from benchmarks.table import Cells, in_words
from benchmarks.training import train
from benchmarks.workload import Workload, open_learner
from forgetmenot.engine.learner import Learner
from forgetmenot.models.adapt import adapt
from forgetmenot.prompting import Encoded

COLUMNS = ("machine", "model", "shots", "ours (MiB)", "peer (MiB)", "memory ×", "the peer's flags")


@dataclass(frozen=True)
class Job:
    """What a child process needs to train."""

    workload: Workload
    model: Path
    device: torch.device
    examples: list[Encoded]
    folder: Path

    def learner(self) -> Learner:
        """The model with its adapter."""
        learner = open_learner(self.workload, self.model, self.device)
        learner.model = adapt(learner.model, self.workload.adapter, 1, self.workload.seed)
        return learner


@dataclass(frozen=True)
class Peaks:
    """A row of the table: MiB that each side adds at its peak."""

    bench: Bench
    ours: float
    theirs: float
    flags: Mapping[str, Any]

    def cells(self) -> Cells:
        """The row as text, in the order of COLUMNS."""
        return (
            self.bench.machine,
            self.bench.called,
            str(self.bench.row.shots),
            f"{self.ours:.0f}",
            f"{self.theirs:.0f}",
            f"**{self.theirs / self.ours:.1f}**",
            in_words(self.flags),
        )


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("memory", "Peak memory of training, against TRL.", measure, columns=COLUMNS)


def measure(bench: Bench) -> Peaks:
    """Train on both sides, each time in a process of its own."""
    workload = bench.workload
    tokenizer = open_learner(workload, bench.model, bench.device).tokenizer
    longest = workload.training.max_length
    examples = [one for part in bench.material for one in part.encode(part.train, tokenizer, longest)]
    job = Job(workload, bench.model, bench.device, examples, bench.folder)
    peers = {k: in_a_process(theirs, job, flags) for k, flags in enumerate(workload.peers.trl.choices)}
    least = min(peers, key=peers.__getitem__)
    return Peaks(bench, in_a_process(ours, job), peers[least], workload.peers.trl.choices[least])


def in_a_process(side: Callable[..., float], *given: Any) -> float:
    """What a function finds in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(side, *given).result()


def ours(job: Job) -> float:
    """Our side's peak."""
    learner = job.learner()
    return added_at_peak(lambda: train(job.workload, learner, job.examples), job.device)


def theirs(job: Job, flags: Mapping[str, Any]) -> float:
    """TRL's peak with some flags."""
    quiet()
    learner = job.learner()
    data = as_tokens(job.examples)
    trainer = sft_trainer(job.workload, learner.model, learner.tokenizer, data, flags, job.folder)
    return added_at_peak(trainer.train, job.device)


if __name__ == "__main__":
    main()
