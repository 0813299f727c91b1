"""What a check found, in sentences: what was lost first, where it was lost, then what nobody can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from forgetmenot.report.verdict_words import (
    decision_words,
    early_warning,
    evidence,
    examples_words,
    worse,
)
from forgetmenot.report.wording import listed

STATUS = {0: "All kept", 1: "Forgotten", 3: "Cannot tell"}
"""The verdict on the whole, by the exit status."""

GAPS = {
    "stage": "training",
    "adapter": "training",
    "GGUF file": "quantizing",
    "model": "exporting or merging",
    "endpoint": "serving",
}
"""What lies between a side and the one before it in a chain, by what it is."""


def headline(content: Mapping[str, Any]) -> str:
    """The whole check in a few sentences, what was lost first.

    Args:
        content: That of check.json.
    """
    return " ".join(sentences(content))


def sentences(content: Mapping[str, Any]) -> list[str]:
    """The sentences of the headline, one for each kind of verdict.

    Args:
        content: That of check.json.
    """
    verdicts, tasks = content["verdicts"], content["tasks"]
    by: dict[str, list[str]] = {}
    for task, one in verdicts.items():
        by.setdefault(one["decision"], []).append(task)
    tuned = content["tuned"][-1]["title"]
    told_of = []
    if lost := sorted(by.get("forgotten", ()), key=lambda task: _severity(verdicts[task])):
        told = [f"{task} ({evidence(verdicts[task], tasks[task]['metric'])})" for task in lost]
        told_of.append(f"{tuned} forgot {listed(told)}.")
    if unsure := by.get("cannot tell"):
        told = [f"{task} ({_unsure(verdicts[task])})" for task in unsure]
        told_of.append(f"Cannot tell whether it kept {listed(told)}.")
    if kept := by.get("kept"):
        told = [
            f"{task} ({worse(tasks[task]['metric'])}, within the margin)"
            if verdicts[task]["lower_within_margin"]
            else task
            for task in kept
        ]
        told_of.append(f"Kept: {listed(told)}.")
    if gained := by.get("gained"):
        told_of.append(f"Gained: {listed(gained)}.")
    if warning := early_warning(verdicts):
        told_of.append(warning)
    if nothing := at_chance(content):
        told_of.append(f"The base is not above chance on {listed(nothing)}, where nothing can be lost.")
    return told_of


def at_chance(content: Mapping[str, Any]) -> list[str]:
    """The tasks on which the base answers no better than without looking, and nothing was forgotten."""
    return [
        task
        for task, one in content["verdicts"].items()
        if one["decision"] != "forgotten"
        and (floor := content["tasks"][task]["majority"]) is not None
        and one["before"] is not None
        and one["before"] <= floor
    ]


def where_lost(content: Mapping[str, Any]) -> list[str]:
    """For each forgotten task of a chain, the step that lost it; nothing for two sides."""
    steps = content["steps"]
    if len(steps) < 2:
        return []
    told = []
    for task, verdict in content["verdicts"].items():
        if verdict["decision"] != "forgotten":
            continue
        at = [step for step in steps if step["verdicts"][task]["decision"] == "forgotten"]
        places = [
            f"in {GAPS.get(step['kind'], step['kind'])} ({step['before']} → {step['after']})" for step in at
        ]
        told.append(f"{task} was lost {listed(places)}." if places else f"{task} was lost bit by bit.")
    return told


def noise_words(content: Mapping[str, Any]) -> list[str]:
    """What the base answered otherwise when it was asked again, in a sentence for each way of asking."""
    ways = {
        "asked_again": "A/A: asked again in another order and batch size, the base answers",
        "control": "Control: with an adapter that changes nothing, the base answers",
    }
    told = []
    for key, opening in ways.items():
        found = content.get(key) or {}
        n = sum(one["n"] for one in found.values())
        different = {task: one["different"] for task, one in found.items() if one["different"]}
        if not n:
            continue
        if different:
            which = listed([f"{count} of {task}" for task, count in different.items()])
            told.append(f"{opening} {which} otherwise, of {n} examples: as much may be noise of the path.")
        else:
            apart = max((one.get("log_likelihood_apart", 0.0) for one in found.values()), default=0.0)
            told.append(f"{opening} all of {n} examples alike (log-likelihoods within {apart:.1g} nats).")
    return told


def rows(content: Mapping[str, Any], verdicts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each task's verdict for a table, what was lost first, then what nobody can tell."""
    order = {"forgotten": 0, "cannot tell": 1, "kept": 2, "gained": 3}
    named = sorted(verdicts, key=lambda task: (order[verdicts[task]["decision"]], _severity(verdicts[task])))
    return [
        {
            "task": task,
            "metric": content["tasks"][task]["metric"],
            "verdict": verdicts[task],
            "words": decision_words(verdicts[task], content["tasks"][task]["metric"]),
        }
        for task in named
    ]


def _severity(verdict: Mapping[str, Any]) -> float:
    """The difference in margins, so that points and nats can be put in one order."""
    difference = verdict["difference"]
    return 0.0 if difference is None else difference / verdict["margin"]


def _unsure(verdict: Any) -> str:
    """Why nobody can tell, within brackets."""
    if verdict["reason"] is not None:
        return str(verdict["reason"]).rstrip(".")
    few = f"{examples_words(verdict)} are too few"
    return f"{few}; about {verdict['needed']:,} would do" if verdict["needed"] else few


def titles(content: Mapping[str, Any]) -> Sequence[str]:
    """The short names of all sides, the base first."""
    return [content["base"]["title"], *(one["title"] for one in content["tuned"])]
