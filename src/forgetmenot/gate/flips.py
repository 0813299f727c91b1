"""The examples whose answers turned between two sides, to read one by one."""

from collections.abc import Mapping
from typing import Any

from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.gate.early import same_examples
from forgetmenot.record.predictions import Predictions


def flips(
    scored: ScoredTask, before: Mapping[str, Predictions], after: Mapping[str, Predictions]
) -> list[dict[str, Any]]:
    """Every example of a task that turned right or wrong, what was lost first.

    Labels are given as the words that stand for them in the prompt. Graded answers do not turn; there are
    none of them here.

    Args:
        scored: The task.
        before: The base's answers, by task.
        after: The tuned side's.
    """
    now = after[scored.task.name]
    then = same_examples(before[scored.task.name], now)
    was, still = then.right(scored.task.metric), now.right(scored.task.metric)
    if was is None or still is None:
        return []
    found = [
        {
            "example": then.ids[k],
            "turned": "lost" if was[k] else "gained",
            "text": then.prompt_text[k],
            "right": _word(scored, then.gold[k]),
            "before": _word(scored, then.predicted[k]),
            "after": _word(scored, now.predicted[k]),
        }
        for k in range(len(then))
        if was[k] != still[k]
    ]
    return sorted(found, key=lambda one: one["turned"] != "lost")


def _word(scored: ScoredTask, said: str | None) -> str | None:
    return said if said is None else scored.prompt.choices.get(said, said)
