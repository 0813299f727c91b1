"""Verdicts: what a task lost or gained between two models, judged against a margin. The one way of judging.

A difference after − before, on the same examples, has an interval. With ε the margin, a drop too small to
matter: the task is `kept` if the interval's lower end lies above −ε (non-inferiority), and `gained` if it
lies above 0 as well; else it is `forgotten` if the upper end lies below 0; else nobody can tell with so many
examples. So "kept" is shown, and never follows from a test that found nothing.

`gained` and `forgotten` also need the paired test's p, corrected by Holm's method over the tasks of one pair
of models, to be at most 1 − level: of several tasks that did not change, none is called so in 95 of 100 runs.
That all tasks are kept needs no correction: for it to be wrong, the "kept" of a task that is not would have
to be wrong by itself (intersection-union test, Berger 1982).
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.label_metrics import NO_LABEL
from forgetmenot.metrics.leads import Lead, lead
from forgetmenot.metrics.matrix import MatrixRow
from forgetmenot.metrics.metric import mean
from forgetmenot.metrics.resampling import Interval
from forgetmenot.metrics.significance import PairedDifference, holm, paired_difference
from forgetmenot.metrics.task_metrics import measure, metric_named

Decision = Literal["kept", "gained", "forgotten", "cannot tell"]

LEVEL = 0.95
DRAWS, DRAWS_PER_TASK = 4000, 40
"""Bootstrap draws, and the fewest for each task that is judged: p is no smaller than 1 / (draws + 1), which
Holm multiplies by the tasks."""
POWER = 0.8
ASSUMED_DISCORDANCE = 0.1  # ours: tuned models of LoRA rank 8 turn 5 to 15 % of the answers
FEWEST_KEPT = 30  # ours: among fewer texts the rare one that loses much is easily missing
FEWEST = 10  # ours: a bootstrap of fewer examples, or clusters, does not know how they vary


@dataclass(frozen=True)
class Verdict:
    """What one task lost or gained between two models.

    Attributes:
        decision: See the module.
        before: The first model's score; None where there is none.
        after: The second model's.
        difference: after − before.
        interval: Of the difference, of level `LEVEL`.
        margin: ε, in the unit of the metric.
        paired: The paired test that it rests on, whose own difference is before − after.
        units: Independent examples, or clusters of them.
        needed: How many it would take, if the difference stays what it is; None where it is decided or
            cannot be said.
        reason: Why nothing can be told, where that is not for want of examples.
        lead: The early warning beside it, where labels are chosen by likelihood; see `leads`.
    """

    decision: Decision
    before: float | None
    after: float | None
    difference: float | None
    interval: Interval | None
    margin: float
    paired: PairedDifference
    units: int
    needed: int | None = None
    reason: str | None = None
    lead: Lead | None = None

    @property
    def lower_within(self) -> bool:
        """Whether it is kept and yet surely lower: by less than the margin."""
        return self.decision == "kept" and self.interval is not None and self.interval[1] < 0

    @property
    def n(self) -> int:
        """Examples."""
        return self.paired.n

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `verdicts` of results.json."""
        paired = self.paired.to_json()
        return {
            "decision": self.decision,
            "before": self.before,
            "after": self.after,
            "difference": self.difference,
            "interval": list(self.interval) if self.interval else None,
            "margin": self.margin,
            "lower_within_margin": self.lower_within,
            **{key: paired[key] for key in ("p", "p_holm", "test", "forgotten", "gained", "n")},
            "units": self.units,
            "needed": self.needed,
            "reason": self.reason,
            "lead": self.lead.to_json() if self.lead else None,
        }


def margin_of(task: str, metric: str, margin: float | Mapping[str, float] | None) -> float:
    """Return ε of a task: what is set for the task, or for its metric, or the metric's own.

    Args:
        task: Its name.
        metric: The name of its metric.
        margin: One number for all scores that have a fixed range (a loss in nats keeps its own), or a map
            from tasks or metrics to numbers; None for each metric's own.
    """
    chosen = metric_named(metric)
    if isinstance(margin, Mapping):
        return margin.get(task, margin.get(metric, chosen.margin))
    return margin if margin is not None and chosen.bounded else chosen.margin


def judge(
    columns: Mapping[str, Answers], margins: Mapping[str, float], *, seed: int = 0
) -> dict[str, Verdict]:
    """Judge each task from its first answers to its second, corrected over all of them together.

    Args:
        columns: Task to its answers by two models.
        margins: Task to ε.
        seed: Of bootstrap draws; a task's depend on this, its name and n alone, up to a hundred tasks.
    """
    pairs = {task: _paired(task, answers, seed, len(columns)) for task, answers in columns.items()}
    tested = {task: pair.p for task, pair in pairs.items() if pair.p is not None}
    for task, corrected in zip(tested, holm(list(tested.values())), strict=True):
        pairs[task] = replace(pairs[task], p_holm=corrected)
    return {task: _verdict(columns[task], pair, margins[task], len(tested)) for task, pair in pairs.items()}


def _paired(task: str, answers: Answers, seed: int, tasks: int) -> PairedDifference:
    before, after = answers.predicted
    if before is None or after is None:
        which = "first" if before is None else "second"
        return PairedDifference(reason=f"The {which} model has no score on it.")
    return paired_difference(
        answers.metric,
        answers.gold,
        before,
        after,
        clusters=answers.clusters,
        options=answers.options,
        level=LEVEL,
        seed=[seed, zlib.crc32(task.encode())],
        resamples=max(DRAWS, DRAWS_PER_TASK * tasks),
    )


def _verdict(answers: Answers, pair: PairedDifference, margin: float, tasks: int) -> Verdict:
    scores = [
        None if one is None else measure(answers.metric, answers.gold, one).value for one in answers.predicted
    ]
    units, interval = answers.independent, _interval(answers, pair)
    found = Verdict(
        decision="cannot tell",
        before=scores[0],
        after=scores[1],
        difference=None if pair.difference is None else 0.0 - pair.difference,
        interval=interval,
        margin=margin,
        paired=pair,
        units=units,
        reason=pair.reason,
        lead=lead(answers, LEVEL),
    )
    if interval is None or found.difference is None or pair.p_holm is None:
        return found
    if pair.test != "exact McNemar" and units < FEWEST:
        kind = "examples" if answers.clusters is None else "clusters of examples"
        return replace(found, reason=f"Fewer than {FEWEST} {kind} say too little of how they vary.")
    sure = pair.p_holm <= 1 - LEVEL
    if interval[0] > 0 and sure:
        return replace(found, decision="gained")
    if interval[0] > -margin and units < FEWEST_KEPT and not metric_named(answers.metric).bounded:
        reason = f"Among fewer than {FEWEST_KEPT} the rare example that loses much may be missing."
        return replace(found, needed=FEWEST_KEPT, reason=reason)
    if interval[0] > -margin:
        return replace(found, decision="kept")
    if interval[1] < 0 and sure:
        return replace(found, decision="forgotten")
    enough = needed(found.difference, interval, margin, units, pair.p or 1.0, max(tasks, 1))
    return replace(found, needed=enough)


def _interval(answers: Answers, pair: PairedDifference) -> Interval | None:
    """The interval of after − before.

    The bootstrap knows only what it has seen: where few answers turned it is too narrow, and where none did
    it is a point. So that of a score with a fixed range is at least as wide as Tango's where no answer turns.
    """
    if pair.interval is None or pair.difference is None:
        return None
    low, high = -pair.interval[1] + 0.0, -pair.interval[0] + 0.0
    if pair.test != "exact McNemar" and metric_named(answers.metric).bounded:
        least = _least(answers)
        low, high = min(low, -pair.difference - least), max(high, -pair.difference + least)
    return low, high


def _least(answers: Answers) -> float:
    """How far a score might fall although no answer turned.

    Where none of n turned, Tango's interval still allows a share of z² / (n + z²) to turn. A mean falls by
    that much. F1 and Matthews' correlation may fall further where the answers of one label turn and there
    are few of it: of 400 examples with 4 positives, it allows all of these.
    """
    from scipy.special import ndtri

    z2 = float(ndtri((1 + LEVEL) / 2)) ** 2
    share = z2 / (answers.independent + z2)
    metric, gold, after = metric_named(answers.metric), answers.gold, answers.predicted[-1]
    if metric.reads != "labels" or metric.aggregate is mean:
        return share
    score, n = metric.function(gold, after), len(gold)
    falls = [share]
    for label in np.unique(gold[gold == after]):
        right = np.flatnonzero((gold == label) & (after == label))
        turning = min(share * n, len(right))
        others, counts = np.unique(after[after != label], return_counts=True)
        for wrong in {NO_LABEL, *others[counts == counts.max(initial=0)].tolist()}:
            weights = np.ones((1, n + 1))
            weights[0, right] -= turning / len(right)
            weights[0, n] = turning
            terms = metric.terms(np.append(gold, label), np.append(after, wrong))
            falls.append(score - float(metric.aggregate(terms[None], weights)[0, 0]))
    return float(np.nanmax(falls))


def needed(
    difference: float, interval: Interval, margin: float, n: int, p: float = 1.0, tasks: int = 1
) -> int | None:
    """Return how many examples would decide, if difference and spread stay as they are; None if none would.

    The ends of an interval come nearer to the difference as 1/√n, and the normal deviate of p grows as √n.
    "Kept" needs a lower end above −ε; "forgotten" an upper end below 0 and the p that Holm's correction over
    so many tasks asks of the smallest.

    Args:
        difference: after − before.
        interval: Of it.
        margin: ε.
        n: Examples, or clusters.
        p: Of the paired test, not corrected.
        tasks: How many are tested together.

    Returns:
        Rounded up to two digits.
    """
    from scipy.special import ndtri

    wanted = []
    if difference > -margin:
        wanted.append(((difference - interval[0]) / (difference + margin)) ** 2)
    if difference < 0 and p < 1:
        deviate = float(ndtri((1 - LEVEL) / 2 / tasks) / ndtri(p / 2))
        wanted.append(max((interval[1] - difference) / difference, deviate, key=abs) ** 2)
    if not wanted:
        return None
    exact = max(n * min(wanted), n + 1)
    if exact > 1e9:  # an interval that no number of examples would move off the margin
        return None
    step: int = 10 ** max(math.floor(math.log10(exact)) - 1, 0)
    return int(math.ceil(exact / step) * step)


def smallest_drop(n: int, discordance: float = ASSUMED_DISCORDANCE) -> float:
    """Return the smallest margin that n independent examples are likely to keep to, if nothing changed.

    (z_{.975} + z_{.8})·√(D / n), D being the share of examples whose answers differ: with this margin and no
    true change the verdict is "kept" in 80 of 100 samples of examples (the normal approximation to the power
    of the paired test).
    """
    from scipy.special import ndtri

    return float((ndtri((1 + LEVEL) / 2) + ndtri(POWER)) * math.sqrt(discordance / n))


PAIRS = ("base_end", "own_end", "base_own")
"""The pairs of models that a run's tasks are judged between: from the base model to the last stage, from the
task's own stage to the last, from the base model to its own stage."""


def verdicts(
    stages: Sequence[MatrixRow],
    columns: Mapping[str, Answers],
    margins: Mapping[str, float],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Verdict]]:
    """Judge every task of a run, trained or only watched, between each pair of `PAIRS` that it has.

    A task that was only watched has no stage of its own, and one that was learned in the last stage nothing
    after it. Where stages start from the base model, as those of `single` do, only base → own is judged.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers after each stage.
        margins: Task to ε.
        seed: Of bootstrap draws.
    """
    last = len(stages) - 1
    in_sequence = all(stage.follows for stage in stages[2:])
    own = {
        task: next((i for i, stage in enumerate(stages) if task in stage.trains_on), None) for task in columns
    }
    between: dict[str, dict[str, tuple[int, int]]] = {pair: {} for pair in PAIRS}
    for task, learned in own.items():
        if in_sequence and last:
            between["base_end"][task] = (0, last)
        if learned is not None:
            between["base_own"][task] = (0, learned)
            if in_sequence and learned < last:
                between["own_end"][task] = (learned, last)
    return {
        pair: judge({task: _two(columns[task], *rows) for task, rows in found.items()}, margins, seed=seed)
        for pair, found in between.items()
    }


def _two(answers: Answers, first: int, second: int) -> Answers:
    leads = [answers.leads[row] for row in (first, second)] if answers.leads else ()
    return replace(answers, predicted=[answers.predicted[first], answers.predicted[second]], leads=leads)
