"""A study's runs for the ledger: each method's figures, alone and compared with its baselines."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.metrics import spread
from forgetmenot.metrics.spread import Spread
from forgetmenot.report.wording import setting
from forgetmenot.studies.config import load_study

BASELINES = ("sequential", "joint", "single")


@dataclass(frozen=True)
class Entry:
    """One method as it is set, with one adapter: its finished runs.

    Attributes:
        config: Of one of its runs; all but the seed is the same in all.
        title: The method and its options.
        results: Seed to what results.json holds.
        seconds: Seed to how long training and scoring took.
    """

    config: RunConfig
    title: str
    results: Mapping[int, Mapping[str, Any]]
    seconds: Mapping[int, float]

    @property
    def name(self) -> str:
        """The method's name."""
        return self.config.method.name

    def figure(self, name: str) -> dict[int, float]:
        """Seed to a figure of the summary, where it is defined."""
        values = {seed: one["summary"][name] for seed, one in self.results.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    def over_seeds(self, name: str) -> Spread | None:
        """A figure's mean and interval; None where no seed has it."""
        return _spread(list(self.figure(name).values()))

    @property
    def cost(self) -> Mapping[str, Any]:
        """What results.json says of costs; of the first seed, for they are alike."""
        cost: Mapping[str, Any] = next(iter(self.results.values()))["cost"]
        return cost

    @property
    def majority(self) -> float | None:
        """The mean score of always the commonest answer; None where a task has none."""
        most = list(next(iter(self.results.values()))["majority"].values())
        return None if None in most else sum(most) / len(most)


@dataclass(frozen=True)
class Ledger:
    """One study: its methods on one sequence of tasks."""

    name: str
    entries: Sequence[Entry]
    machines: Sequence[str]

    @property
    def seeds(self) -> list[int]:
        """All seeds of which there are runs."""
        return sorted({seed for entry in self.entries for seed in entry.results})

    def baseline(self, entry: Entry, name: str) -> Entry | None:
        """The run of a baseline that an entry is compared with: with the same adapter.

        `joint` has one stage, so what its adapter does at a later one does not matter.
        """
        ours = entry.config.adapter.model_dump(exclude={"per_stage"} if name == "joint" else set())
        for other in self.entries:
            theirs = other.config.adapter.model_dump(exclude={"per_stage"} if name == "joint" else set())
            if other.name == name and ours == theirs:
                return other
        return None


def read_study(folder: Path) -> Ledger:
    """What a study has finished so far.

    Args:
        folder: Its directory, with study.yaml and runs/.
    """
    found: dict[str, list[Path]] = {}
    for results in sorted(folder.glob("runs/*/results.json")):
        found.setdefault(read_resolved(results.with_name("config.yaml")).hash, []).append(results.parent)
    entries = [_entry(runs) for runs in found.values()]
    machines = dict.fromkeys(_machine(path) for runs in found.values() for path in runs)
    return Ledger(load_study(folder / "study.yaml").name, entries, list(machines))


def _entry(runs: Sequence[Path]) -> Entry:
    results, seconds = dict[int, Any](), dict[int, float]()
    for path in runs:
        config = read_resolved(path / "config.yaml")
        results[config.seed] = json.loads((path / "results.json").read_text(encoding="utf-8"))
        timing = json.loads((path / "timing.json").read_text(encoding="utf-8"))
        seconds[config.seed] = sum(timing["train_s"]) + sum(timing["eval_s"])
    return Entry(config, setting(config.method.model_dump()), results, seconds)


def _machine(run: Path) -> str:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    identity = environment["identity"]
    return f"{environment['machine']}, {identity['threads']} thread(s) a run, {identity['precision']}"


def saved(ledger: Ledger, entry: Entry) -> Spread | None:
    """How much less a task drops since it was learned than under `sequential`, seed by seed.

    By −BWT, which takes no maximum: one rises where answers only change, without any loss.
    """
    return _paired(ledger, entry, "backward_transfer", lambda own, other: own - other)


def learned_more(ledger: Ledger, entry: Entry) -> Spread | None:
    """How much higher an entry's learning accuracy is than that of `sequential`, seed by seed."""
    return _paired(ledger, entry, "learning_accuracy", lambda own, other: own - other)


def gap_closed(ledger: Ledger, entry: Entry) -> float | None:
    """The share of the gap from `sequential` to `joint` that is closed; None where there may be none."""
    sequential, joint = (ledger.baseline(entry, name) for name in ("sequential", "joint"))
    if sequential is None or joint is None:
        return None
    low, high = (one.figure("average_performance") for one in (sequential, joint))
    gap = _spread([high[seed] - low[seed] for seed in low.keys() & high.keys()])
    gained = _paired(ledger, entry, "average_performance", lambda own, other: own - other)
    if gap is None or gap.interval is None or gap.interval[0] <= 0 or gained is None:
        return None
    return gained.mean / gap.mean


def times(ledger: Ledger, entry: Entry) -> float | None:
    """An entry's seconds of training and scoring over those of `sequential`: the median over the seeds.

    Other work on the machine makes single runs slow, and none fast, so a mean would say too much.
    """
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None:
        return None
    both = entry.seconds.keys() & sequential.seconds.keys()
    return median(entry.seconds[seed] / sequential.seconds[seed] for seed in both) if both else None


def _paired(
    ledger: Ledger, entry: Entry, name: str, compare: Callable[[float, float], float]
) -> Spread | None:
    """A figure against that of `sequential`, over the seeds that both have finished."""
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None or sequential is entry or entry.name in BASELINES:
        return None
    own, other = entry.figure(name), sequential.figure(name)
    return _spread([compare(own[seed], other[seed]) for seed in own.keys() & other.keys()])


def _spread(values: Sequence[float]) -> Spread | None:
    return spread(values) if values else None
