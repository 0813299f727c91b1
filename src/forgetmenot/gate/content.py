"""What check.json holds: the verdicts between the sides, and what they rest on."""

import itertools
from collections.abc import Sequence
from typing import Any

from forgetmenot.gate.answered import Answered
from forgetmenot.gate.early import TEST, same_examples
from forgetmenot.gate.flips import flips
from forgetmenot.gate.panel import Panel
from forgetmenot.metrics import judge, metric_named
from forgetmenot.record.predictions import column

KEPT, FORGOTTEN, CANNOT_TELL = 0, 1, 3
"""What a check exits with, where nothing went wrong."""

OTHER_TOKENS = "the two tokenizers divide the texts otherwise, so losses per token cannot be compared"


def content_of(panel: Panel, sides: Sequence[Answered]) -> dict[str, Any]:
    """What check.json holds."""
    base, last = sides[0], sides[-1]
    steps = [
        {
            "before": one.details["title"],
            "after": other.details["title"],
            "kind": other.side.kind,
            "verdicts": _judged(panel, one, other),
        }
        for one, other in itertools.pairwise(sides)
    ]
    verdicts = _judged(panel, base, last) if len(sides) > 2 else steps[0]["verdicts"]
    decisions = [one["decision"] for one in verdicts.values()]
    status = FORGOTTEN if "forgotten" in decisions else CANNOT_TELL if "cannot tell" in decisions else KEPT
    return {
        "version": 1,
        "status": status,
        "base": dict(base.details),
        "tuned": [dict(one.details) for one in sides[1:]],
        "chat": panel.chat,
        "tasks": {
            one.task.name: {
                "metric": one.task.metric,
                "metric_version": metric_named(one.task.metric).version,
                "n": len(one.examples),
                "prompt": one.prompt.name,
                "prompt_hash": one.prompt.hash,
                "margin": panel.margins[one.task.name],
                "majority": one.majority,
                **one.described,
            }
            for one in base.scored
        },
        "verdicts": verdicts,
        "steps": steps,
        "asked_again": base.noise.get("again", {}),
        "control": base.noise.get("control", {}),
        "flips": {one.task.name: flips(one, base.answers, last.answers) for one in base.scored},
    }


def _judged(panel: Panel, one: Answered, other: Answered) -> dict[str, Any]:
    """The verdict on each task between two sides, as results.json would hold it."""
    pairs = {
        task.name: (same_examples(one.answers[task.name], other.answers[task.name]), other.answers[task.name])
        for task in panel.tasks
    }
    columns = {task.name: column(task.metric, pairs[task.name]) for task in panel.tasks}
    found = {name: verdict.to_json() for name, verdict in judge(columns, panel.margins).items()}
    for name, (before, after) in pairs.items():
        if after.not_finite:
            found[name]["reason"] = f"{other.side.title}: {after.not_finite}"
        elif before.tokens != after.tokens:  # only of losses are the tokens counted
            undecided = {"lower_within_margin": False, "needed": None, "reason": OTHER_TOKENS}
            found[name] |= {"decision": "cannot tell", **undecided}
        elif name in other.decisions:  # interval and p are not valid where one stops when one likes
            nothing = dict.fromkeys(("interval", "p", "p_holm", "needed", "reason"))
            decided = {"decision": other.decisions[name], "lower_within_margin": False, "test": TEST}
            found[name] |= {**nothing, **decided}
    return found
