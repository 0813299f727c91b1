"""The costs of a run: what its method stores, adds and needs, and what was computed."""

from collections.abc import Mapping, Sequence
from typing import Any

from forgetmenot.report.wording import byte_size, duration


def costs(cost: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A few words on each cost; only those that are known.

    Args:
        cost: `cost` of results.json.
        timing: The parsed timing.json, if there is one.
    """
    found = {}
    if kept := cost.get("memory_kept"):
        found["memory kept"] = _kept(list(kept.values()))
    if added := cost.get("parameters_added"):
        found["parameters added"] = _added(list(added.values())[-1], cost.get("parameters"))
    if "past_data" in cost:
        found["past data"] = "needed" if cost["past_data"] else "not needed"
    if learned := list(cost.get("answer_tokens", {}).values()):
        found["answer tokens"] = f"{sum(one['new'] for one in learned):,} new{_rehearsed(learned)}"
    if rehearsed := cost.get("rehearsed"):
        found["rehearsed"] = _examples(rehearsed)
    for part in ("training", "scoring"):
        counts = [stage[part] for stage in cost.get("positions", {}).values() if part in stage]
        computed, alone = (sum(one[name] for one in counts) for name in ("computed", "without_sharing"))
        if alone:
            found[f"positions in {part}"] = f"{computed:,}, {computed / alone:.0%} of those without sharing"
    if timing:
        trained, scored = (sum(s or 0.0 for s in timing.get(name, ())) for name in ("train_s", "eval_s"))
        found["time"] = f"{duration(trained)} of training, {duration(scored)} of scoring"
    return found


def _rehearsed(learned: Sequence[Mapping[str, Any]]) -> str:
    """How many tokens the stages that rehearse have rehearsed, and their share in each quarter of a stage."""
    rehearsing = [one for one in learned if one["rehearsed"]]
    if not rehearsing:
        return ""
    phases = [
        [sum(counts) for counts in zip(*phase, strict=True)]
        for phase in zip(*(one["phases"] for one in rehearsing), strict=True)
    ]
    count = sum(one["rehearsed"] for one in rehearsing)
    return f", {count:,} rehearsed (of the stages that rehearse {rehearsed_share(phases)})"


def rehearsed_share(phases: Sequence[Sequence[int]]) -> str:
    """The share of tokens that were rehearsed, on the whole and in each phase.

    Args:
        phases: New and rehearsed tokens of each; the last of a short stage have none.
    """
    shares = [f"{phase[1] / sum(phase):.1%}" if sum(phase) else "–" for phase in phases]
    new, rehearsed = map(sum, zip(*phases, strict=True))
    return f"{rehearsed / (new + rehearsed):.1%}; by quarter of the steps {', '.join(shares)}"


def _added(count: int, parameters: int | None) -> str:
    share = f" ({count / parameters:.2%} of the model's)" if count and parameters else ""
    return f"{count:,}{share}" if count else "none"


def _examples(in_stages: Mapping[str, int]) -> str:
    """How many examples of earlier tasks the stages trained on, and which had none."""
    without = [name for name, count in in_stages.items() if not count]
    if len(without) == len(in_stages):
        return "no example in any stage"
    none = f", none in {', '.join(without)}" if without else ""
    return f"{sum(in_stages.values()):,} examples of earlier tasks in all{none}"


def _kept(bytes_after: list[int]) -> str:
    """What the method stores for later stages, after the last one and for each."""
    if not bytes_after[-1]:
        return "nothing beside the weights"
    each = f", {byte_size(bytes_after[-1] / len(bytes_after))} for each stage" if len(bytes_after) > 1 else ""
    return f"{byte_size(bytes_after[-1])} beside the weights{each}"
