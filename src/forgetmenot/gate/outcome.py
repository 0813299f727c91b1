"""What came of one asking, for every process: scores, verdicts, and what is logged of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgetmenot.gate.watcher import Asked, Watcher
from forgetmenot.metrics import judge, metric_named
from forgetmenot.record.predictions import Predictions, column, score
from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.report.verdict_words import evidence
from forgetmenot.report.wording import listed


@dataclass(frozen=True)
class Outcome:
    """What every process learns of an asking.

    Attributes:
        metrics: Task to the name of its metric.
        scores: Task to its score as people write it; None where it has none.
        verdicts: Task to what became of it since the base; None for the base itself.
        missing: Why a task has no score.
        error: What ends the training: only before its first step.
    """

    metrics: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    verdicts: Mapping[str, VerdictOf] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def forgotten(self) -> list[str]:
        """The tasks that are forgotten."""
        return [task for task, one in (self.verdicts or {}).items() if one["decision"] == "forgotten"]

    @property
    def forgotten_in_words(self) -> str:
        """The same with their numbers."""
        verdicts = self.verdicts or {}
        return listed([f"{task} ({evidence(verdicts[task], self.metrics[task])})" for task in self.forgotten])

    @property
    def logged(self) -> dict[str, float]:
        """What a trainer logs, by name; scores and differences as people write them."""
        values: dict[str, float] = {}
        for task, value in self.scores.items():
            metric = metric_named(self.metrics[task])
            verdict = (self.verdicts or {}).get(task)
            if value is not None:
                values[f"forgetting/{task}/{metric.name}"] = value
            if verdict is not None and verdict["difference"] is not None:
                values[f"forgetting/{task}/difference"] = metric.shown(verdict["difference"]) + 0.0  # no −0
        if self.verdicts is not None:
            values["forgetting/forgotten"] = len(self.forgotten)
        if self.missing:
            values["forgetting/missing"] = len(self.missing)
        return values


def judged(asked: Asked, base: Mapping[str, Predictions] | None, watcher: Watcher) -> Outcome:
    """Score what was answered, and judge it against the base.

    Args:
        asked: What came of asking.
        base: The base's answers; None where these are they.
        watcher: What was asked.
    """
    metrics = {one.task.name: one.task.metric for one in watcher.scored}
    scores: dict[str, float | None] = {}
    for task, answers in asked.answers.items():
        value = score(metrics[task], answers).value
        scores[task] = None if value is None else metric_named(metrics[task]).shown(value)
    verdicts: dict[str, Any] | None = None
    if base is not None:
        columns = {task: column(metrics[task], [base[task], one]) for task, one in asked.answers.items()}
        found = judge(columns, watcher.panel.margins)
        verdicts = {task: one.to_json() for task, one in found.items()}
    return Outcome(metrics, scores, verdicts, asked.missing)
