"""The base model asked again: how many generated answers another order and batch size change.

Greedy text is not the same to the last token in every batch: sums of other shapes round otherwise, and where
two tokens are almost equally likely the answer takes another way. So a run that generates asks its base model
some examples a second time, in reverse order and smaller batches. What differs then is noise of the path, and
a smaller difference between two stages says nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from forgetmenot.engine.learner import Learner
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain

EXAMPLES = 64


def ask_again(
    learner: Learner, method: Method, scored: ScoredTask, answers: Predictions
) -> AskedAgain | None:
    """Ask the last examples of a task again, and count the answers that differ; None if none are generated.

    Args:
        learner: The model as the method answers with it.
        method: What routes.
        scored: The task.
        answers: What was answered before.
    """
    if not scored.generated:
        return None
    places = list(reversed(range(len(scored.examples))))[:EXAMPLES]
    again = evaluate(learner, method, _in_smaller_batches(scored.only(places)))
    before = [answers.predicted[k] for k in places]
    right = answers.right(scored.task.metric)
    right_again = again.right(scored.task.metric)
    flips = None
    if right is not None and right_again is not None:
        flips = sum(right[k] != now for k, now in zip(places, right_again, strict=True))
    differ = sum(said != now for said, now in zip(before, again.predicted, strict=True))
    return AskedAgain(n=len(places), different=differ, flipped=flips)


def _in_smaller_batches(scored: ScoredTask) -> ScoredTask:
    """The same task, written in about three batches or more."""
    plan = scored.generation
    if plan is None:
        return scored
    lengths: Sequence[int] = [len(one.prompt) + plan.decoding.max_new_tokens for one in scored.encoded]
    most = max(max(lengths), sum(lengths) // 3)
    return replace(scored, generation=replace(plan, batch_positions=most))
