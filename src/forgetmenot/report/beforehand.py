"""What can be shown with the examples at hand, said before anything runs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from forgetmenot.metrics import metric_named, smallest_drop
from forgetmenot.metrics.verdicts import ASSUMED_DISCORDANCE
from forgetmenot.report.verdict_words import margin_words
from forgetmenot.report.wording import listed

NAMED = 6


@dataclass(frozen=True)
class AtHand:
    """The examples of one task that is to be judged.

    Attributes:
        metric: The name of its metric.
        examples: How many.
        independent: Those and clusters of them that are independent of one another.
        margin: ε, in the unit of the metric.
    """

    task: str
    metric: str
    examples: int
    independent: int
    margin: float

    @property
    def smallest_drop(self) -> float | None:
        """The smallest drop that is likely to be ruled out if nothing changed (`metrics.smallest_drop`).

        None for a metric without right and wrong answers: how its scores vary is not known beforehand.
        """
        exact = metric_named(self.metric).test == "exact McNemar"
        return smallest_drop(self.independent) if exact and self.independent else None

    @property
    def needed(self) -> int | None:
        """From how many independent examples on "kept" is likely to be shown within the margin."""
        if self.smallest_drop is None:
            return None
        return math.ceil((smallest_drop(1) / self.margin) ** 2)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "smallest_drop": self.smallest_drop, "needed": self.needed}


def can_be_shown(tasks: Sequence[AtHand]) -> list[str]:
    """Say in a few sentences what drop can be ruled out on each task, and where "kept" cannot be shown."""
    known = sorted(
        ((drop / one.margin, one, drop) for one in tasks if (drop := one.smallest_drop) is not None),
        key=lambda found: -found[0],
    )
    alike: dict[tuple[str, str], list[str]] = {}
    for _, one, drop in known[:NAMED]:
        alike.setdefault((margin_words(round(drop, 3), one.metric), _count(one)), []).append(one.task)
    told = [
        f"{drop} on {listed(names)} ({count}{' each' if len(names) > 1 else ''})"
        for (drop, count), names in alike.items()
    ]
    if len(known) > NAMED:
        told.append(f"less on {len(known) - NAMED} more tasks")
    sentences = []
    if told:
        sentences.append(
            f"With these examples, and if {100 * ASSUMED_DISCORDANCE:.0f} in 100 answers differ (assumed), a "
            f"drop cannot be ruled out under {listed(told)}."
        )
    few: dict[tuple[int, str], list[str]] = {}
    for times, one, _ in known:
        if times > 1 and one.needed is not None:
            few.setdefault((one.needed, margin_words(one.margin, one.metric)), []).append(one.task)
    for (needed, margin), names in few.items():
        sentences.append(
            f"Kept within the margin of {margin} can be shown from about {needed:,} examples on: "
            f"there are fewer of {listed(names)}."
        )
    rest = [f"{one.task} ({one.metric})" for one in tasks if one.smallest_drop is None]
    if rest:
        more = [*rest[:NAMED], *([f"{len(rest) - NAMED} more"] if len(rest) > NAMED else [])]
        sentences.append(f"What can be shown on {listed(more)} is not known beforehand.")
    return sentences


def _count(one: AtHand) -> str:
    if one.independent == one.examples:
        return f"{one.examples:,} examples"
    return f"{one.examples:,} examples, {one.independent:,} independent"
