"""Peak memory of training: what it adds beyond the model, against TRL's SFTTrainer.

    python -m benchmarks.memory --data-dir DATA --models MODELS --rows smollm2/0

Each side trains over a few batches in a fresh process, once with every setting of the workload: TRL with and
without gradient checkpointing, ours with `training.micro_batch` and `training.activation_checkpointing`.
The peer's leanest setting is what we are compared with, and ours is the leanest of those that take no longer
than the workload allows beside it. That both learn the same is what `benchmarks.training` shows.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Bench, run_command
from benchmarks.lower_layers import LowerLayers
from benchmarks.ours import train, with_adapter
from benchmarks.peers import as_tokens, quiet, sft_trainer
from benchmarks.resident import added_at_peak
from benchmarks.table import ROW, Cells, in_words, row_cells
from benchmarks.timing import Clock, timed
from benchmarks.workload import Row, Sizes, Workload, open_learner
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoded

Flags = Mapping[str, Any]
CHECKPOINTING = "gradient_checkpointing"
COLUMNS = (
    *ROW,
    "ours (MiB)",
    "ours (s)",
    "settings",
    "TRL (MiB)",
    "TRL (s)",
    "its flags",
    "TRL, checkpointing (MiB)",
    "TRL, checkpointing (s)",
    "its flags",
    "memory ×",
    "time ×",
)


@dataclass(frozen=True)
class Job:
    """What a child process needs to train."""

    workload: Workload
    model: Path
    device: torch.device
    clock: Clock
    examples: list[Encoded]
    folder: Path

    def learner(self, *, peer: bool = False) -> Learner:
        """The model with its adapter."""
        return with_adapter(self.workload, open_learner(self.workload, self.model, self.device, peer=peer))


@dataclass(frozen=True)
class Peak:
    """What a setting costs: MiB that training adds at its peak, and the seconds that it takes."""

    flags: Flags
    mib: float
    seconds: float


@dataclass(frozen=True)
class Peaks:
    """A row of the table: our setting, and the peer's leanest without and with checkpointing."""

    bench: Bench
    ours: Peak
    plain: Peak
    checkpointing: Peak

    def cells(self) -> Cells:
        """The row as text, in the order of COLUMNS."""
        bench, better = self.bench, leanest([self.plain, self.checkpointing])
        theirs: list[str] = []
        for peak in (self.plain, self.checkpointing):
            shown = {name: value for name, value in peak.flags.items() if name != CHECKPOINTING}
            theirs += [f"{peak.mib:.0f}", f"{peak.seconds:.1f}", in_words(shown)]
        return (
            *row_cells(bench.machine, bench.called, bench.layers, bench.row),
            f"{self.ours.mib:.0f}",
            f"{self.ours.seconds:.1f}",
            in_words(self.ours.flags),
            *theirs,
            f"**{better.mib / self.ours.mib:.1f}**",
            f"{better.seconds / self.ours.seconds:.1f}",
        )


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("memory", "Peak memory of training, against TRL.", measure, sizes=sizes, columns=COLUMNS)


def sizes(workload: Workload, _: Row) -> Sizes:
    """How many examples of each task are trained on."""
    return Sizes(score=1, train=workload.memory.train)


def measure(bench: Bench) -> Peaks:
    """Train with every setting of both sides, each time in a process of its own."""
    workload = bench.workload
    tokenizer = open_learner(workload, bench.model, bench.device).tokenizer
    longest = workload.training.max_length
    examples = [one for part in bench.material for one in part.encode(part.train, tokenizer, longest)]
    job = Job(workload, bench.model, bench.device, bench.clock, examples, bench.folder)
    peers = [tried(theirs, job, flags) for flags in workload.memory.trl]
    plain, checkpointing = (
        leanest([one for one in peers if one.flags.get(CHECKPOINTING, False) is on]) for on in (False, True)
    )
    own = [tried(ours, job, settings) for settings in workload.memory.ours]
    longest_allowed = workload.memory.slower * leanest([plain, checkpointing]).seconds
    return Peaks(bench, chosen(own, longest_allowed), plain, checkpointing)


def leanest(peaks: Sequence[Peak]) -> Peak:
    """The setting that adds least memory."""
    return min(peaks, key=lambda peak: peak.mib)


def chosen(peaks: Sequence[Peak], seconds: float) -> Peak:
    """The leanest setting that takes at most so many seconds; the fastest, where all take longer."""
    return leanest([one for one in peaks if one.seconds <= seconds] or [min(peaks, key=lambda p: p.seconds)])


def tried(side: Callable[[Job, Flags], tuple[float, float]], job: Job, flags: Flags) -> Peak:
    """What a setting costs, found in a fresh process, and said."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak = Peak(flags, *pool.submit(side, job, flags).result())
    print(f"{side.__name__}, {in_words(flags)}: {peak.mib:.0f} MiB, {peak.seconds:.1f} s", file=sys.stderr)
    return peak


def ours(job: Job, flags: Flags) -> tuple[float, float]:
    """Our side's peak and time; the states of layers that never learn are on disk, as in later runs."""
    workload, learner = job.workload, job.learner()
    training = workload.training.model_copy(update=dict(flags))
    workload = workload.model_copy(update={"training": training})
    if training.activation_checkpointing is True:
        learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if workload.adapter.layers != "all":
        asked = {"training": [one.answer for one in job.examples]}
        LowerLayers.of(learner, workload.adapter.layers, asked, job.folder / "lower-layers").read()
    return measured(partial(train, workload, learner, job.examples), job)


def theirs(job: Job, flags: Flags) -> tuple[float, float]:
    """TRL's peak and time with some flags."""
    quiet()
    learner = job.learner(peer=True)
    data = as_tokens(job.examples)
    trainer = sft_trainer(job.workload, learner.model, learner.tokenizer, data, flags, job.folder)
    return measured(trainer.train, job)


def measured(work: Callable[[], object], job: Job) -> tuple[float, float]:
    """MiB that a piece of work adds at its peak, and its seconds."""
    seconds: list[float] = []
    mib = added_at_peak(lambda: seconds.append(timed(work, job.clock)), job.device)
    if not mib > 0:
        raise UserError(f"training seems to add {mib:.0f} MiB, so what was freed before has been used again.")
    return mib, seconds[0]


if __name__ == "__main__":
    main()
