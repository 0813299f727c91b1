"""A comparison of runs: groups, paired tests between them, and the effects of conditions."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from forgetmenot.metrics import Contrast, Spread, contrast, holm, spread
from forgetmenot.record.results import RunResults
from forgetmenot.report.comparison.runs import (
    CONDITIONS,
    DROP,
    ComparedRun,
    level_name,
    on_common_tasks,
    varying,
)
from forgetmenot.report.comparison.weighted import END, LOST, UntestableError, matched, weighted
from forgetmenot.report.wording import setting

HAQUE = {
    "haque_pretrained_mean": "pretrained",
    "haque_forgetting_sum": "forgetting, sum",
    "haque_forgetting_mean": "forgetting, mean",
    "haque_learning_sum": "learning, sum",
    "haque_learning_mean": "learning, mean",
    "haque_final_mean": "final mean",
    "haque_stage_mean": "stage mean",
    "haque_diagonal_mean": "diagonal mean",
    "backward_transfer": "backward transfer",
}
"""The columns of the paper's table (Haque 2025), with each reading of its "training performance", and BWT."""

USUAL = {
    "average_performance": "average performance",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting (Chaudhry)",
    "learning_accuracy": "learning accuracy",
}
"""The columns of every other comparison."""

FINAL = "average_performance"  # and Haque's final mean, which is the same
RATE = "training.learning_rate"
NO_SPREAD = "No seed and no draw of the examples differs from another, so that nothing measures chance."
TESTED = (END, LOST)
"""The figures by which every pair is tested."""


@dataclass(frozen=True)
class TaskMeans:
    """One task's scores in a group, as people write them: means over its runs, None where no run has one."""

    learned: float | None
    end: float | None
    since: float | None
    """The end less what was learned, over the runs that have both."""


@dataclass(frozen=True, eq=False)
class Group:
    """What is compared with others of its kind: a model, a method, or any setting but a run's conditions.

    Attributes:
        name: Its model and method, if they tell it from the others, otherwise all that differs.
        details: What else is its own, as a method's learning rate; empty where the name says all.
    """

    name: str
    runs: Sequence[ComparedRun]
    details: str = ""

    @property
    def finished(self) -> list[ComparedRun]:
        """The runs that did not fail."""
        return [run for run in self.runs if run.results is not None]

    def spread(self, figure: str) -> Spread | None:
        """A figure over the finished runs; None where one of them lacks it."""
        values = [run.figure(figure) for run in self.finished]
        known = [value for value in values if value is not None]
        return spread(known) if known and len(known) == len(values) else None

    def noise_floor(self, figure: str) -> float | None:
        """What a figure that takes a maximum shows where nothing changed: the mean over the runs."""
        floors = [run.results.noise_floor.get(figure) for run in self.finished if run.results]
        known = [floor for floor in floors if floor is not None]
        return float(np.mean(known)) if known and len(known) == len(floors) else None

    def tasks(self) -> dict[str, TaskMeans]:
        """Each task to its scores, the mean over the finished runs that have them."""
        results = [run.results for run in self.finished if run.results]
        tasks = dict.fromkeys(task for one in results for task in one.tasks)
        return {task: _means(task, [one for one in results if task in one.tasks]) for task in tasks}

    @property
    def method(self) -> str | None:
        """The method's name; None where the rows do not differ in it."""
        method = self.runs[0].varies.get("method") if self.runs else None
        return method.get("name") if isinstance(method, Mapping) else method

    @property
    def but_rate(self) -> str | None:
        """What it has in common with rows of other learning rates; None where the rate does not vary."""
        if not self.runs or RATE not in self.runs[0].varies:
            return None
        varies = {k: v for k, v in self.runs[0].varies.items() if k not in (RATE, *CONDITIONS)}
        return ", ".join(setting(value) for value in varies.values()) or None

    @property
    def parameters(self) -> int | None:
        """How many parameters its model has; None where its runs differ, or do not say."""
        counts = {run.results.cost.get("parameters") for run in self.finished if run.results}
        return counts.pop() if len(counts) == 1 else None

    @property
    def not_learned(self) -> dict[str, int]:
        """Task to the number of runs that did not bring it above the chance level."""
        tasks = [task for run in self.finished if run.results for task in run.results.not_learned]
        return {task: tasks.count(task) for task in dict.fromkeys(tasks)}


@dataclass(frozen=True)
class PairedTest:
    """Two levels of one factor over the same examples, in the runs that are alike in all else.

    Attributes:
        factor: "group", or the key of the grid whose levels they are.
        figure: One of TESTED.
        values: The figure of the first and the second, averaged over the matched runs.
        contrast: First minus second; None where `reason` says why.
        p_holm: Its p, corrected for all tests of the comparison.
        lower: In how many of the `matched` pairs of runs the first's figure is the lower.
        higher: In how many it is the higher.
    """

    factor: str
    first: str
    second: str
    figure: str
    values: tuple[float, float] | None = None
    contrast: Contrast | None = None
    p_holm: float | None = None
    lower: int = 0
    higher: int = 0
    matched: int = 0
    reason: str | None = None

    def turned(self) -> "PairedTest":
        """The same test seen from the second."""
        a, b = self.values or (0.0, 0.0)
        judged = self.contrast
        if judged is not None:
            judged = replace(
                judged,
                difference=-judged.difference,
                interval=(-judged.interval[1], -judged.interval[0]),
            )
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(b, a) if self.values else None,
            contrast=judged,
            lower=self.higher,
            higher=self.lower,
        )


@dataclass(frozen=True)
class Effect:
    """How far one key of a grid moves a figure, everything else being equal.

    Attributes:
        levels: Each of its values to the figure's mean over the blocks.
        blocks: The choices of all other keys in which every level has a finished run; means are over these.
        share: Of the variance among finished runs, what the level means explain (eta squared); None unless
            every combination of what finished did.
    """

    key: str
    figure: str
    levels: Mapping[str, float]
    blocks: int
    share: float | None

    @property
    def range(self) -> float:
        """The highest level's mean minus the lowest's."""
        return max(self.levels.values()) - min(self.levels.values())


class Comparison:
    """Runs side by side, on the tasks that all of them were scored on.

    Args:
        name: What the whole is called.
        runs: All of them, at least one, those that failed too.
        haque: Whether they are held against Haque's paper, so that forgetting is what he calls so.
    """

    def __init__(self, name: str, runs: Sequence[ComparedRun], *, haque: bool = False) -> None:
        self.name, self.haque = name, haque
        self.runs, self.left_out = on_common_tasks(runs)
        self.columns = HAQUE if haque else USUAL
        self.loss = "haque_forgetting_mean" if haque else DROP
        self.effects = {
            FINAL: END,
            self.loss: "forgetting, mean" if haque else LOST,
        }
        self.keys = varying(runs)
        kinds = [key for key in self.keys if key not in CONDITIONS]
        naming = _telling(self.runs, kinds)
        self.kind = naming[0] if len(naming) == 1 else "setting" if naming else "run"
        alone = next((run.results.name for run in runs if run.results), name)
        groups: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            named = ", ".join(self.level(run, key) for key in naming)
            groups.setdefault(named or alone, []).append(run)
        rest = [key for key in kinds if key not in naming]
        self.groups = [
            Group(named, some, ", ".join(self.level(some[0], key) for key in rest))
            for named, some in groups.items()
        ]
        self.matched_groups = _alike(self.groups)
        ranked = {one.name for one in self.matched_groups}
        self.not_ranked = [one for one in self.groups if one.finished and one.name not in ranked]

    def level(self, run: ComparedRun, key: str) -> str:
        """A run's value of a key as the page calls it."""
        return level_name(key, run.varies.get(key), [one.varies.get(key) for one in self.runs])

    def levels(self, key: str) -> list[str]:
        """The values of a key that a run has finished with."""
        return list(dict.fromkeys(self.level(run, key) for run in self.finished))

    @property
    def finished(self) -> list[ComparedRun]:
        """The runs that did not fail."""
        return [run for run in self.runs if run.results is not None]

    @property
    def seeds(self) -> int:
        """With how many training seeds runs have finished."""
        return len({run.key(["seed"]) for run in self.finished})

    @cached_property
    def failures(self) -> dict[str, list[ComparedRun]]:
        """The runs that failed by the sentence that says why."""
        by_sentence: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            if run.failed:
                by_sentence.setdefault(run.failed, []).append(run)
        return by_sentence

    @cached_property
    def ranked(self) -> list[Group]:
        """The groups that have lost something or nothing (`loss`), the least first.

        Where some learn one task after another, one that learns all at once (`joint`), or each from the base
        (`single`), is not among them: nothing came after what it learned.
        """
        known = [(found.mean, one) for one in self.matched_groups if (found := one.spread(self.loss))]
        in_turn = [pair for pair in known if pair[1].spread("backward_transfer")]
        return [one for _, one in sorted(in_turn or known, key=lambda pair: pair[0])]

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Every pair of groups, of prompts and of orders, by each figure of TESTED; Holm over all."""
        tests = [
            _test(factor, first, second, figure, *pairs)
            for factor, first, second, *pairs in self._pairs()
            for figure in TESTED
        ]
        known = [k for k, test in enumerate(tests) if test.contrast and test.contrast.p is not None]
        corrected = holm([test.contrast.p for test in tests if test.contrast and test.contrast.p is not None])
        for k, p in zip(known, corrected, strict=True):
            tests[k] = replace(tests[k], p_holm=p)
        return tests

    def test(self, first: str, second: str, figure: str) -> PairedTest:
        """The test of two groups that have finished runs, first less second."""
        for test in self.tests:
            if test.factor == "group" and test.figure == figure:
                if (test.first, test.second) == (first, second):
                    return test
                if (test.first, test.second) == (second, first):
                    return test.turned()
        raise KeyError(f"{first} and {second} are not two groups with finished runs.")

    def _pairs(self) -> Iterator[tuple[str, str, str, Sequence[ComparedRun], Sequence[ComparedRun]]]:
        """Two levels of a factor, and the finished runs of each that are alike in all else, in one order."""
        there = [group for group in self.groups if group.finished]
        for one, other in itertools.combinations(there, 2):
            left, right = matched([one.finished, other.finished], CONDITIONS)
            yield "group", one.name, other.name, left, right
        for key in self.keys:
            if key in ("order", "prompt"):
                rest = [other for other in self.keys if other != key]
                for first, second in itertools.combinations(self.levels(key), 2):
                    sides = [
                        [run for run in self.finished if self.level(run, key) == level]
                        for level in (first, second)
                    ]
                    left, right = matched(sides, rest)
                    yield key, first, second, left, right

    def effect(self, key: str, figure: str) -> Effect | None:
        """How far a key moves a figure; None where no choice of all else has two and all levels finished."""
        rest, levels = [other for other in self.keys if other != key], self.levels(key)
        blocks: dict[str, dict[str, list[float]]] = {}
        for run in self.finished:
            value = run.figure(figure)
            if value is not None:
                blocks.setdefault(run.key(rest), {}).setdefault(self.level(run, key), []).append(value)
        whole = [block for block in blocks.values() if len(block) == len(levels)]
        if len(levels) < 2 or not whole:
            return None
        means = {one: float(np.mean([np.mean(block[one]) for block in whole])) for one in levels}
        values = [run.figure(figure) for run in self.finished]
        combinations = math.prod(len(self.levels(one)) for one in self.keys)
        share = None
        if (
            len(values) == combinations
            and None not in values
            and (total := float(np.var(np.array(values, dtype=float)))) > 0
        ):
            share = float(np.var(list(means.values()))) / total
        return Effect(key, figure, means, len(whole), share)

    def seed_deviation(self, figure: str) -> float | None:
        """The standard deviation of a figure over seeds, all else being equal; None without several seeds."""
        rest = [key for key in self.keys if key != "seed"]
        cells: dict[str, list[float]] = {}
        for run in self.finished:
            value = run.figure(figure)
            if value is not None:
                cells.setdefault(run.key(rest), []).append(value)
        variances = [float(np.var(cell, ddof=1)) for cell in cells.values() if len(cell) > 1]
        return float(np.sqrt(np.mean(variances))) if variances else None


def _telling(runs: Sequence[ComparedRun], kinds: Sequence[str]) -> list[str]:
    """By what rows are named: model and method where these tell them apart, otherwise by all that differs."""
    first = [key for key in kinds if key in ("model", "method")]
    rows = [len({run.key(keys) for run in runs}) for keys in (first, kinds)]
    return first if rows[0] == rows[1] else list(kinds)


def _means(task: str, results: Sequence[RunResults]) -> TaskMeans:
    """One task's scores over several runs."""
    learned, ends, since = list[float](), list[float](), list[float]()
    for run in results:
        outcome = run.outcome(task)
        own, end = outcome.shown(outcome.learned), outcome.shown(outcome.end)
        learned += [] if own is None else [own]
        ends += [] if end is None else [end]
        if own is not None and end is not None and run.own_stage(task) != run.measured - 1:
            since.append(end - own)
    return TaskMeans(*(float(np.mean(some)) if some else None for some in (learned, ends, since)))


def _alike(groups: Sequence[Group]) -> list[Group]:
    """The groups, each with the runs whose order, prompt and seed all of them have finished with.

    So a mean over the runs of one is never compared with one over other conditions. A group with fewer than
    half of the conditions of the one that has most is left out: it would take the others' runs away. Where
    nothing is common to the rest, the groups stay as they are.
    """
    keys = {one.name: {run.key(CONDITIONS) for run in one.finished} for one in groups}
    most = max(map(len, keys.values()), default=0)
    there = [one for one in groups if not one.finished or 2 * len(keys[one.name]) >= most]
    some = [keys[one.name] for one in there if one.finished]
    common = set.intersection(*some) if some else set()
    if not common:
        return list(groups)
    return [
        replace(one, runs=[run for run in one.finished if run.key(CONDITIONS) in common]) for one in there
    ]


def _test(
    factor: str,
    first: str,
    second: str,
    figure: str,
    left: Sequence[ComparedRun],
    right: Sequence[ComparedRun],
) -> PairedTest:
    """Compare matched runs: the mean over the runs, in every draw of the examples."""
    none = PairedTest(factor, first, second, figure, matched=len(left))
    try:
        found = weighted([(1.0, left), (-1.0, right)], figure)
    except UntestableError as reason:
        return replace(none, reason=str(reason))
    values = (found.means[0], found.means[1])
    try:
        judged = contrast(*values, found.resampled, found.by_seed)
    except ValueError as reason:
        return replace(none, values=values, reason=str(reason))
    if judged.p is None:
        return replace(none, values=values, reason=NO_SPREAD)
    a, b = found.values
    lower, higher = (sum(x < y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
    return replace(none, values=values, contrast=judged, lower=lower, higher=higher)
