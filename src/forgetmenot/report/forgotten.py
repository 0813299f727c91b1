"""The examples that a run lost: right at first and wrong at the end, or texts that became less likely."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.metrics import metric_named
from forgetmenot.record.layout import PREDICTIONS, stage_folder
from forgetmenot.record.predictions import Predictions, read_predictions
from forgetmenot.record.results import RunResults
from forgetmenot.report.headline import named_in_headline
from forgetmenot.report.wording import number

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Lost:
    """An example that was answered right at first and wrong at the end, or whose text became less likely.

    Attributes:
        gold: The right answer, in the words of the prompt; None for a text that is only scored.
        said_then: The answer then, or the loss per token of the text.
        sure_then: The probability of the answer given then, among the candidates; None where there are none.
        sure_now: The same at the end.
    """

    example: str
    text: str | None
    gold: str | None
    said_then: str
    said_now: str
    sure_then: float | None = None
    sure_now: float | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """What one task lost: counts over all its examples, and a few of them to read.

    Attributes:
        from_base: Whether "then" is the base model; else it is right after the task's own stage.
        named: Whether the headline names the task as lost.
        by_loss: Whether what counts is how likely a text is, and not whether an answer is right.
    """

    task: str
    forgotten: int
    gained: int
    n: int
    shown: tuple[Lost, ...]
    from_base: bool
    named: bool
    by_loss: bool = False


def lost_examples(run_dir: Path, results: RunResults) -> list[Losses]:
    """Compare each task's predictions at the end with those before: the tasks of the headline come first.

    A task that the headline names is compared as it says, with the base model or with the task's own stage;
    another one with its own stage, or with the base model where it was only watched. Tasks whose answers are
    graded or that have no score, and tasks after whose stage nothing was trained, are left out. The examples
    shown are those whose two answers were surest, or the texts that lost most.
    """
    if not results.in_sequence:
        return []
    last = results.measured - 1
    named = {one.task: base for one, _, base in named_in_headline(results)}
    answers: dict[int, dict[str, Predictions]] = {}
    losses = []
    for task in (*named, *(task for task in results.tasks if task not in named)):
        own = results.own_stage(task)
        first = 0 if own is None or named.get(task) else own
        metric = metric_named(results.metrics[task])
        if first >= last or (metric.correct is None and metric.reads != "likelihoods"):
            continue
        for i in (first, last):
            if i not in answers:
                folder = stage_folder(run_dir, results.stages[i].name)
                answers[i] = read_predictions(folder / PREDICTIONS)
        then, now = answers[first].get(task), answers[last].get(task)
        if then is None or now is None or then.not_finite or now.not_finite:
            continue
        place = {name: k for k, name in enumerate(now.ids)}
        both = [(k, place[name]) for k, name in enumerate(then.ids) if name in place]
        if metric.correct is None:
            lost, gained = _less_likely(then, now, both)
        else:
            words = results.headline.get("choices", {}).get(task, {})
            lost, gained = _turned_wrong(metric.name, then, now, both, words)
        if both:
            shown = tuple(lost[:SHOWN])
            by_loss = metric.correct is None
            losses.append(
                Losses(task, len(lost), gained, len(both), shown, first == 0, task in named, by_loss)
            )
    return losses


def _turned_wrong(
    metric: str,
    then: Predictions,
    now: Predictions,
    both: Sequence[tuple[int, int]],
    words: Mapping[str, str],
) -> tuple[list[Lost], int]:
    """The examples that turned from right to wrong, the surest first, and how many turned the other way."""
    right_then, right_now = _right(metric, then), _right(metric, now)
    lost = [
        _lost(then, before, now, after, words)
        for before, after in both
        if right_then[before] and not right_now[after]
    ]
    gained = sum(right_now[after] and not right_then[before] for before, after in both)
    return sorted(lost, key=lambda one: -min(one.sure_then or 0.0, one.sure_now or 0.0)), gained


def _less_likely(
    then: Predictions, now: Predictions, both: Sequence[tuple[int, int]]
) -> tuple[list[Lost], int]:
    """The texts whose loss per token rose, most first, and of how many it fell."""
    losses = [(before, _loss(then, before), _loss(now, after)) for before, after in both]
    worse = sorted((one for one in losses if one[2] > one[1]), key=lambda one: one[1] - one[2])
    told = [
        Lost(
            example=then.ids[k],
            text=then.prompt_text[k],
            gold=None,
            said_then=f"{number(was)} nats per token",
            said_now=f"{number(became)} nats per token",
        )
        for k, was, became in worse
    ]
    return told, sum(became < was for _, was, became in losses)


def _loss(predictions: Predictions, k: int) -> float:
    row, tokens = predictions.log_likelihoods[k], predictions.tokens[k]
    assert row is not None, "a text that is scored has its log-likelihood"
    assert tokens, "and its number of tokens"
    return -row[0] / tokens


def _right(metric: str, predictions: Predictions) -> list[bool]:
    found = predictions.right(metric)
    assert found is not None, "the metric tells right from wrong"
    return found


def _lost(then: Predictions, before: int, now: Predictions, after: int, words: Mapping[str, str]) -> Lost:
    said = now.predicted[after]
    return Lost(
        example=then.ids[before],
        text=then.prompt_text[before],
        gold=_in_words(then.gold[before], words),
        said_then=_in_words(str(then.predicted[before]), words),
        said_now="no answer" if said is None else _in_words(said, words),
        sure_then=_sureness(then.log_likelihoods[before]),
        sure_now=_sureness(now.log_likelihoods[after]),
    )


def _in_words(label: str, words: Mapping[str, str]) -> str:
    """An answer as the prompt puts it, with the label where that says something else: "yes (equivalent)"."""
    word = words.get(label, label)
    tells_more = word.casefold() != label.casefold() and not label.isdecimal()
    return f"{word} ({label})" if tells_more else word


def _sureness(log_likelihoods: Sequence[float] | None) -> float | None:
    """The largest candidate's share of the candidates' probability."""
    if not log_likelihoods:
        return None
    top = max(log_likelihoods)
    return 1.0 / sum(math.exp(value - top) for value in log_likelihoods)
