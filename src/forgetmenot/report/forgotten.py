"""The examples that a run forgot: right after their own stage, wrong at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from forgetmenot.metrics import METRICS
from forgetmenot.report.findings import Findings

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Lost:
    """An example that was answered right after its own stage and wrong at the end.

    Attributes:
        sure_then: The probability of the answer given then, among the candidates; None for generated text.
        sure_now: The same at the end.
    """

    example: str
    text: str | None
    gold: str
    said_then: str
    said_now: str
    sure_then: float | None
    sure_now: float | None


@dataclass(frozen=True, slots=True)
class Losses:
    """What one task lost: counts over all its examples, and a few of them to read."""

    task: str
    forgotten: int
    gained: int
    n: int
    shown: tuple[Lost, ...]


def lost_examples(run_dir: Path, findings: Findings) -> list[Losses]:
    """Compare each trained task's predictions after its own stage with those at the end.

    Tasks whose metric has no right and wrong answers, and tasks after which nothing was trained, are left
    out. The examples shown are those whose two answers were surest.
    """
    if not findings.in_sequence:
        return []
    last = findings.measured - 1
    answers: dict[int, dict[str, dict[str, dict[str, Any]]]] = {}
    losses = []
    for task in findings.tasks:
        own = findings.own_stage(task)
        if own is None or own >= last or METRICS[findings.metrics[task]].correct is None:
            continue
        for i in (own, last):
            if i not in answers:
                answers[i] = _read(run_dir / "stages" / findings.stages[i].name / "predictions.parquet")
        then, now = answers[own].get(task, {}), answers[last].get(task, {})
        both = [(then[example], now[example]) for example in then if example in now]
        if both:
            losses.append(_compare(task, both))
    return losses


def _read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of one stage by task and example; none where the file was not kept."""
    if not path.is_file():
        return {}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in parquet.read_table(path).to_pylist():
        rows.setdefault(row["task"], {})[row["example"]] = row
    return rows


def _compare(task: str, both: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Losses:
    lost = [_lost(then, now) for then, now in both if _right(then) and not _right(now)]
    gained = sum(1 for then, now in both if _right(now) and not _right(then))
    surest = sorted(lost, key=lambda one: -min(one.sure_then or 0.0, one.sure_now or 0.0))
    return Losses(task, len(lost), gained, len(both), tuple(surest[:SHOWN]))


def _right(row: dict[str, Any]) -> bool:
    return row["predicted"] is not None and str(row["predicted"]).strip() == str(row["gold"]).strip()


def _lost(then: dict[str, Any], now: dict[str, Any]) -> Lost:
    return Lost(
        example=str(then["example"]),
        text=then.get("prompt_text"),
        gold=str(then["gold"]),
        said_then=str(then["predicted"]),
        said_now="no answer" if now["predicted"] is None else str(now["predicted"]),
        sure_then=_sureness(then.get("log_likelihoods")),
        sure_now=_sureness(now.get("log_likelihoods")),
    )


def _sureness(log_likelihoods: Sequence[float] | None) -> float | None:
    """The largest candidate's share of the candidates' probability."""
    if not log_likelihoods:
        return None
    top = max(log_likelihoods)
    return 1.0 / sum(math.exp(value - top) for value in log_likelihoods)
