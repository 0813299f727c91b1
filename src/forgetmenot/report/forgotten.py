"""The examples that a run forgot: right after their own stage, wrong at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.metrics import metric_named
from forgetmenot.record.layout import PREDICTIONS, stage_folder
from forgetmenot.record.predictions import Predictions, read_predictions
from forgetmenot.record.results import RunResults

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


def lost_examples(run_dir: Path, results: RunResults) -> list[Losses]:
    """Compare each trained task's predictions after its own stage with those at the end.

    Tasks whose metric has no right and wrong answers or that have no score, and tasks after which nothing
    was trained, are left out. The examples shown are those whose two answers were surest.
    """
    if not results.in_sequence:
        return []
    last = results.measured - 1
    answers: dict[int, dict[str, Predictions]] = {}
    losses = []
    for task in results.tasks:
        own = results.own_stage(task)
        if own is None or own >= last or metric_named(results.metrics[task]).correct is None:
            continue
        for i in (own, last):
            if i not in answers:
                folder = stage_folder(run_dir, results.stages[i].name)
                answers[i] = read_predictions(folder / PREDICTIONS)
        then, now = answers[own].get(task), answers[last].get(task)
        if then is not None and now is not None and not (then.not_finite or now.not_finite):
            losses.append(_compare(task, results.metrics[task], then, now))
    return [one for one in losses if one.n]


def _compare(task: str, metric: str, then: Predictions, now: Predictions) -> Losses:
    """Compare the examples that both have."""
    right_then, right_now = (dict(zip(one.ids, _right(metric, one), strict=True)) for one in (then, now))
    place = {name: k for k, name in enumerate(now.ids)}
    both = [(k, place[name]) for k, name in enumerate(then.ids) if name in place]
    names = [then.ids[k] for k, _ in both]
    lost = [
        _lost(then, before, now, after)
        for (before, after), name in zip(both, names, strict=True)
        if right_then[name] and not right_now[name]
    ]
    gained = sum(right_now[name] and not right_then[name] for name in names)
    surest = sorted(lost, key=lambda one: -min(one.sure_then or 0.0, one.sure_now or 0.0))
    return Losses(task, len(lost), gained, len(both), tuple(surest[:SHOWN]))


def _right(metric: str, predictions: Predictions) -> list[bool]:
    found = predictions.right(metric)
    assert found is not None, "the metric tells right from wrong"
    return found


def _lost(then: Predictions, before: int, now: Predictions, after: int) -> Lost:
    said = now.predicted[after]
    return Lost(
        example=then.ids[before],
        text=then.prompt_text[before],
        gold=then.gold[before],
        said_then=str(then.predicted[before]),
        said_now="no answer" if said is None else said,
        sure_then=_sureness(then.log_likelihoods[before]),
        sure_now=_sureness(now.log_likelihoods[after]),
    )


def _sureness(log_likelihoods: Sequence[float] | None) -> float | None:
    """The largest candidate's share of the candidates' probability."""
    if not log_likelihoods:
        return None
    top = max(log_likelihoods)
    return 1.0 / sum(math.exp(value - top) for value in log_likelihoods)
