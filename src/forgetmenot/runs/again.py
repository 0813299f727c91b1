"""The same model asked again: what another order and batch size change in its answers.

Sums of other shapes round otherwise, and where two candidates or two tokens are almost equally likely the
answer takes another way. So a run that generates asks its base model some examples a second time, in reverse
order and smaller batches, and a check asks its base model so in any case. What differs then is noise of the
path, and a smaller difference between two models says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

ROUNDING = 1e-5
EXAMPLES = 64


def ask_again(
    learner: Learner, method: Method, scored: ScoredTask, answers: Predictions
) -> AskedAgain | None:
    """Ask the last examples of a task again; None if its answers are not generated. See `asked_again`."""
    return asked_again(learner, method, scored, answers) if scored.generated else None


def asked_again(learner: Learner, method: Method, scored: ScoredTask, answers: Predictions) -> AskedAgain:
    """Ask the last examples of a task again, and count the answers that differ.

    Args:
        learner: The model as the method answers with it.
        method: What routes.
        scored: The task.
        answers: What was answered before.
    """
    places = last(scored)
    again = evaluate(learner, method, _in_smaller_batches(scored.only(places)))
    return differences(scored, places, answers, again)


def last(scored: ScoredTask) -> list[int]:
    """The places of the examples that are asked again, from the last one on."""
    return list(reversed(range(len(scored.examples))))[:EXAMPLES]


def differences(
    scored: ScoredTask, places: Sequence[int], answers: Predictions, again: Predictions
) -> AskedAgain:
    """Count the answers that differ.

    Args:
        scored: The task.
        places: Of the examples that were asked again.
        answers: What was answered before, to all of its examples.
        again: What was answered to those at `places`.
    """
    before = [answers.predicted[k] for k in places]
    right = answers.right(scored.task.metric)
    right_again = again.right(scored.task.metric)
    flips = None
    if right is not None and right_again is not None:
        flips = sum(right[k] != now for k, now in zip(places, right_again, strict=True))
    differ = sum(_differ(said, now) for said, now in zip(before, again.predicted, strict=True))
    found = AskedAgain(n=len(places), different=differ, flipped=flips)
    then = [answers.log_likelihoods[k] for k in places]
    apart = [
        abs(one - other)
        for first, second in zip(then, again.log_likelihoods, strict=True)
        if first is not None and second is not None
        for one, other in zip(first, second, strict=True)
    ]
    if apart:
        found["log_likelihood_apart"] = max(apart)
    return found


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two answers are others; of numbers the last digits are rounding."""
    if one is None or other is None or one == other:
        return one != other
    try:
        return not math.isclose(float(one), float(other), rel_tol=ROUNDING, abs_tol=ROUNDING)
    except ValueError:
        return one != other


def _in_smaller_batches(scored: ScoredTask) -> ScoredTask:
    """The same task, written in about three batches or more."""
    plan = scored.generation
    if plan is None:
        return scored
    lengths: Sequence[int] = [len(one.prompt) + plan.decoding.max_new_tokens for one in scored.encoded]
    most = max(max(lengths), sum(lengths) // 3)
    return replace(scored, generation=replace(plan, batch_positions=most))
