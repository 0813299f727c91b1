"""Was a task forgotten, or is it chance? Paired tests, one example at a time, never on a maximum."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from forgetmenot.metrics.intervals import Answers, Interval, percentiles, resample
from forgetmenot.metrics.matrix import ScoreMatrix, Stage, UndefinedError, learned_before_last
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True)
class PairedDifference:
    """What one task lost between two stages, judged on the same examples.

    Attributes:
        difference: Score before − score after, above 0 where something was lost; None where one is undefined.
        interval: Of the difference, by paired bootstrap; None where a resample is undefined.
        p: Two-sided, of the hypothesis that nothing changed.
        p_holm: `p` corrected for the number of tasks tested together; None for a single test.
        test: "exact McNemar" or "paired bootstrap".
        forgotten: Examples right before and wrong after; None where answers are graded.
        gained: Examples wrong before and right after; None where answers are graded.
        n: Examples.
        reason: Why something is None.
    """

    difference: float | None
    interval: Interval | None
    p: float | None
    p_holm: float | None
    test: str
    forgotten: int | None
    gained: int | None
    n: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `significance` of results.json."""
        return {**asdict(self), "interval": list(self.interval) if self.interval else None}


def paired_difference(
    metric: str,
    gold: Any,
    before: Any,
    after: Any,
    *,
    resamples: int = 4000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
) -> PairedDifference:
    """Compare two answers [n] to each of the same examples.

    For accuracy and exact_match, p is McNemar's exact test (McNemar 1947): the binomial test that an example
    whose answer turned from right to wrong is as likely as one that turned the other way. For others it is a
    paired bootstrap test: the share of resampled differences that lie at least as far from the observed
    one as that lies from 0, (1 + hits) / (1 + resamples) so that it is never 0 (Davison and Hinkley 1997,
    chapter 4). The interval is the percentile bootstrap's in either case; right at the edge of significance
    it and McNemar's p may disagree.

    Args:
        metric: Its name.
        gold: What was right, as `measure` takes it.
        before: The answers right after the task was learned.
        after: The answers at the end.
        resamples: Bootstrap draws of the examples, the same for both answers.
        level: Of the interval.
        seed: Of the draws.
    """
    chosen = metric_named(metric)
    terms = chosen.terms(gold, [before, after])
    n = terms.shape[-1]
    if n == 0:
        return PairedDifference(None, None, None, None, "", None, None, 0, "There are no examples.")

    first, last = chosen.aggregate(terms, np.ones((1, n)))[0]
    difference = float(first - last)
    draws = resample(chosen, terms, resamples, np.random.default_rng(seed))
    differences = draws[:, 0] - draws[:, 1]

    forgotten = gained = None
    if chosen.correct is not None:
        was, still = chosen.correct(gold, [before, after])
        forgotten, gained = int((was & ~still).sum()), int((~was & still).sum())
    p: float | None
    if metric in ("accuracy", "exact_match") and forgotten is not None and gained is not None:
        test, p = "exact McNemar", mcnemar(forgotten, gained)
    else:
        test = "paired bootstrap"
        # Nothing but rounding may separate a resample from the observed difference: it counts as a hit.
        hits = int((np.abs(differences - difference) >= abs(difference) - 1e-12).sum())
        p = (1 + hits) / (1 + resamples)

    reason = None
    if np.isnan(differences).any() or np.isnan(difference):
        reason = f"{metric} is undefined, in the sample or in a resample: {chosen.undefined}."
        p = p if test == "exact McNemar" else None
    return PairedDifference(
        difference=None if np.isnan(difference) else difference,
        interval=percentiles(differences, level),
        p=p,
        p_holm=None,
        test=test,
        forgotten=forgotten,
        gained=gained,
        n=n,
        reason=reason,
    )


def significance(
    stages: Sequence[Stage],
    columns: Mapping[str, Answers],
    *,
    resamples: int = 4000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedDifference]:
    """Test R[j][j] − R[T][j] for every task learned before the last stage, Holm-corrected over those tasks.

    Empty where nothing could be forgotten: one task, `joint`, `single`.

    Args:
        stages: The rows, stage 0 being the base model.
        columns: Task to its answers, in the order of the matrix.
        resamples: Bootstrap draws for each task.
        level: Of the intervals.
        seed: Of the draws; a task's draws depend on this, its name and n alone.
    """
    matrix = ScoreMatrix(tuple(columns), tuple(stages), np.zeros((len(stages), len(columns))))
    try:
        tasks = learned_before_last(matrix)
    except UndefinedError:
        return {}
    tests: dict[str, PairedDifference] = {}
    for task in tasks:
        answers, learned = columns[task], matrix.learned_in(task)
        before, after = answers.predicted[learned], answers.predicted[-1]
        if before is None or after is None:
            missing = stages[learned if before is None else -1].name
            reason = f"The answers on {task} after stage {missing} are missing."
            tests[task] = PairedDifference(None, None, None, None, "", None, None, 0, reason)
        else:
            tests[task] = paired_difference(
                answers.metric,
                answers.gold,
                before,
                after,
                resamples=resamples,
                level=level,
                seed=[seed, zlib.crc32(task.encode())],
            )
    tested = [task for task in tests if tests[task].p is not None]
    corrected = holm([tests[task].p for task in tested])  # type: ignore[misc]
    return {**tests, **{t: replace(tests[t], p_holm=p) for t, p in zip(tested, corrected, strict=True)}}


def mcnemar(forgotten: int, gained: int) -> float:
    """Return the exact two-sided p of McNemar's test from its two discordant counts; 1 where both are 0."""
    return float(min(1.0, 2 * binom.cdf(min(forgotten, gained), forgotten + gained, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values, in the same order, corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(value) for value in corrected]
