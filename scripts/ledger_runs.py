"""A study's runs for the ledger: each method's figures, alone and held against its baselines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.metrics import Contrast, contrast, holm, spread
from forgetmenot.metrics.spread import Spread
from forgetmenot.record.results import RunResults
from forgetmenot.report.comparison.claims import JudgedClaim, judge
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.runs import CONDITIONS, ComparedRun, read_run
from forgetmenot.report.comparison.weighted import END, LEARNED, LOST, UntestableError, matched, weighted
from forgetmenot.report.wording import setting
from forgetmenot.studies.config import expand_study, load_study

BASELINES = ("sequential", "joint", "single")
TESTED = (LOST, LEARNED, END)
"""The figures by which every method is held against `sequential`."""


@dataclass(frozen=True)
class Entry:
    """One method as it is set, with one adapter: its finished runs.

    Attributes:
        config: Of one of its runs; all but the seed is the same in all.
        runs: Seed to run.
        seconds: Seed to how long training and scoring took.
    """

    config: RunConfig
    runs: Mapping[int, ComparedRun]
    seconds: Mapping[int, float]

    @property
    def name(self) -> str:
        """The method's name."""
        return self.config.method.name

    @property
    def title(self) -> str:
        """The method and its options."""
        return setting(self.config.method.model_dump())

    def figure(self, name: str) -> dict[int, float]:
        """Seed to a figure of the summary, where it is defined."""
        values = {seed: run.figure(name) for seed, run in self.runs.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    def over_seeds(self, name: str) -> Spread | None:
        """A figure's mean and interval; None where no seed has it."""
        values = list(self.figure(name).values())
        return spread(values) if values else None

    @property
    def cost(self) -> Mapping[str, Any]:
        """What results.json says of costs; of the first seed, for they are alike."""
        return self._first.cost

    @property
    def tasks(self) -> Sequence[str]:
        """What was scored."""
        return self._first.tasks

    @property
    def majority(self) -> float | None:
        """The mean score of always the commonest answer; None where a task has none."""
        most = [value for value in self._first.majority.values() if value is not None]
        return sum(most) / len(most) if most and len(most) == len(self._first.majority) else None

    @property
    def rehearsed(self) -> float:
        """Answer tokens of earlier examples that were trained on, as a share of all."""
        stages = self.cost["answer_tokens"].values()
        old, new = (sum(stage[kind] for stage in stages) for kind in ("rehearsed", "new"))
        return old / (old + new) if old else 0.0

    @property
    def _first(self) -> RunResults:
        results = next(iter(self.runs.values())).results
        assert results is not None
        return results


@dataclass(frozen=True)
class Difference:
    """A method less its baseline in one figure, tested over seeds and examples; p is Holm's over the page."""

    contrast: Contrast
    p_holm: float | None = None


@dataclass(frozen=True)
class Ledger:
    """One study: its methods on one sequence of tasks.

    Attributes:
        claims: What was stated before the runs, judged; nothing until all of them have finished.
        stated: How many seeds the study has.
    """

    name: str
    entries: Sequence[Entry]
    machines: Sequence[str]
    claims: Sequence[JudgedClaim] = ()
    stated: int = 1

    def baseline(self, entry: Entry, name: str) -> Entry | None:
        """A baseline with the same kind of adapter: with the same `per_stage` too where there is one."""
        alike = [
            other
            for other in self.entries
            if other.name == name and _but_per_stage(other.config) == _but_per_stage(entry.config)
        ]
        same = [one for one in alike if one.config.adapter.per_stage == entry.config.adapter.per_stage]
        return next(iter(same + alike), None)


def read_study(folder: Path) -> Ledger:
    """What a study has finished so far.

    Args:
        folder: Its directory, with study.yaml and runs/.
    """
    study = load_study(folder / "study.yaml")
    found: dict[str, list[ComparedRun]] = {}
    configs: dict[str, RunConfig] = {}
    for results in sorted(folder.glob("runs/*/results.json")):
        config = read_resolved(results.with_name("config.yaml"))
        setting_ = {"method": config.method.model_dump(mode="json"), "config": config.hash}
        run = read_run(results.parent, {**setting_, "seed": config.seed})
        if run.failed is None:
            configs[config.hash] = config
            found.setdefault(config.hash, []).append(run)
    runs = [run for of_one in found.values() for run in of_one]
    whole = len(runs) == len(expand_study(study))
    claims = judge(Comparison(study.name, runs), study.protocol.claims) if whole else []
    machines = dict.fromkeys(_machine(run.path) for run in runs if run.path)
    entries = [_entry(configs[key], of_one) for key, of_one in found.items()]
    return Ledger(study.name, entries, list(machines), claims, len(study.grid.get("seed", [0])))


def _entry(config: RunConfig, runs: Sequence[ComparedRun]) -> Entry:
    by_seed = {run.varies["seed"]: run for run in runs}
    return Entry(config, by_seed, {seed: _seconds(run.path) for seed, run in by_seed.items() if run.path})


def _seconds(run: Path) -> float:
    timing = json.loads((run / "timing.json").read_text(encoding="utf-8"))
    return float(sum(timing["train_s"]) + sum(timing["eval_s"]))


def _machine(run: Path) -> str:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    identity = environment["identity"]
    return f"{environment['machine']}, {identity['threads']} thread(s) a run, {identity['precision']}"


def _but_per_stage(config: RunConfig) -> Any:
    return config.adapter.model_dump(exclude={"per_stage"})


def against_sequential(ledger: Ledger, entry: Entry, figure: str) -> Contrast | None:
    """A figure of TESTED less that of `sequential`, tested over the seeds and the examples of both.

    None for a baseline, and where the two cannot be tested.
    """
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None or entry.name in BASELINES:
        return None
    own, other = matched([list(entry.runs.values()), list(sequential.runs.values())], CONDITIONS)
    try:
        found = weighted([(1.0, own), (-1.0, other)], figure)
        mine, its = found.means
        return contrast(mine, its, found.resampled, found.by_seed)
    except (UntestableError, ValueError):
        return None


def differences(ledgers: Sequence[Ledger]) -> dict[tuple[int, int, str], Difference]:
    """Every difference to `sequential` on the page, corrected for their number by Holm.

    Keyed by the places of the ledger and of its entry, and the figure.
    """
    found = {
        (i, k, figure): Difference(judged)
        for i, ledger in enumerate(ledgers)
        for k, entry in enumerate(ledger.entries)
        for figure in TESTED
        if (judged := against_sequential(ledger, entry, figure)) is not None
    }
    p = {key: one.contrast.p for key, one in found.items() if one.contrast.p is not None}
    corrected = holm(list(p.values()))
    for key, value in zip(p, corrected, strict=True):
        found[key] = replace(found[key], p_holm=value)
    return found


def gap_closed(ledger: Ledger, entry: Entry) -> float | None:
    """The share of the gap from `sequential` to `joint` that is closed; None where there may be none."""
    sequential, joint = (ledger.baseline(entry, name) for name in ("sequential", "joint"))
    if sequential is None or joint is None or entry.name in BASELINES:
        return None
    low, high, own = (one.figure("average_performance") for one in (sequential, joint, entry))
    both, all_three = low.keys() & high.keys(), low.keys() & high.keys() & own.keys()
    gap = spread([high[seed] - low[seed] for seed in both]) if both else None
    if gap is None or gap.interval is None or gap.interval[0] <= 0 or not all_three:
        return None
    return sum(own[seed] - low[seed] for seed in all_three) / len(all_three) / gap.mean


def times(ledger: Ledger, entry: Entry) -> float | None:
    """An entry's seconds of training and scoring over those of `sequential`: the median over the seeds.

    Other work on the machine makes single runs slow, and none fast, so a mean would say too much.
    """
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None:
        return None
    both = entry.seconds.keys() & sequential.seconds.keys()
    return median(entry.seconds[seed] / sequential.seconds[seed] for seed in both) if both else None
