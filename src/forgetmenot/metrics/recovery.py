"""What another way of asking brings back of a task that was learned and then lost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.matrix import MatrixRow
from forgetmenot.metrics.verdicts import Verdict, judge

BROUGHT_BACK, STILL_LOST = "brought_back", "still_lost"


def recoveries(
    stages: Sequence[MatrixRow],
    plain: Mapping[str, Answers],
    helped: Mapping[str, Answers],
    margins: Mapping[str, float],
) -> dict[str, dict[str, Verdict]]:
    """Judge by the same examples, for each task that a later stage followed, what help does at the end.

    `brought_back` goes from the end as asked to the end with help; `still_lost` from the task's own stage as
    asked to the end with help: kept there means that the ability was never lost, only the access to it. Help
    may also help a model that has forgotten nothing, so a gain alone is no proof of a loss.

    Args:
        stages: The rows, stage 0 being the base model.
        plain: Task to its answers after each stage, as the run asks.
        helped: The same with demonstrations, by another prompt, or after a few steps of training.
        margins: Task to ε.
    """
    last = len(stages) - 1
    if not all(stage.follows for stage in stages[2:]):
        return {}
    own = {
        task: i
        for task in helped
        if (i := next((i for i, stage in enumerate(stages) if task in stage.trains_on), last)) < last
    }
    tasks = [task for task in own if _comparable(plain[task], helped[task])]

    def pairs(at: Mapping[str, int]) -> dict[str, Answers]:
        """From each task's plain answers at a stage to its helped ones at the end."""
        return {task: _from_to(plain[task], at[task], helped[task], last) for task in tasks}

    brought, lost = judge(pairs(dict.fromkeys(tasks, last)), margins), judge(pairs(own), margins)
    return {task: {BROUGHT_BACK: brought[task], STILL_LOST: lost[task]} for task in tasks}


def _from_to(one: Answers, first: int, other: Answers, second: int) -> Answers:
    return replace(one, predicted=[one.predicted[first], other.predicted[second]], leads=())


def _comparable(one: Answers, other: Answers) -> bool:
    """Whether both are scores of the same examples by the same metric."""
    same = one.metric == other.metric and len(one.gold) == len(other.gold)
    return same and np.array_equal(one.gold, other.gold)
