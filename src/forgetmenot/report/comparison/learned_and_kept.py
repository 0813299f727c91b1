"""Learning against retention: a picture of two axes, a point for each method."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report import drawing
from forgetmenot.report.wording import number, signed

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 30, 46
LABEL = "What each method learned, against the change of a task since it was learned"


@dataclass(frozen=True)
class Balance:
    """One method: its mean learning accuracy, its mean backward transfer, and their intervals.

    Those of one `series`, such as one method at several learning rates, are joined by a line in their order,
    and the name of the series stands once.
    """

    name: str
    learned: float
    kept: float
    learned_interval: Interval | None = None
    kept_interval: Interval | None = None
    series: str | None = None


@dataclass(frozen=True)
class JointEnd:
    """Where learning all tasks at once ends, among methods that learn as many tasks, one at each stage.

    These end equally well on one falling line: their average performance is their learning accuracy plus
    (tasks − 1) / tasks times their backward transfer.
    """

    performance: float
    tasks: int

    def kept(self, learned: float) -> float:
        """The backward transfer with which a method of this learning accuracy ends there."""
        return (self.performance - learned) * self.tasks / (self.tasks - 1)

    def learned(self, kept: float) -> float:
        """The learning accuracy with which a method of this backward transfer ends there."""
        return self.performance - kept * (self.tasks - 1) / self.tasks


def balance_picture(
    methods: Sequence[Balance], joint: JointEnd | None = None, under: Sequence[str] = ()
) -> Markup:
    """Learning accuracy to the right and backward transfer upwards, as SVG: the best is up and right.

    Args:
        methods: At least one.
        joint: A dashed line of the methods that end as well.
        under: Elements below all others.
    """
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    across = _scale([end for one in methods for end in (one.learned, *(one.learned_interval or ()))])
    upwards = _scale([0.0, *(end for one in methods for end in (one.kept, *(one.kept_interval or ())))])
    x, y = drawing.axis(*across, LEFT, right), drawing.axis(*upwards, bottom, TOP)
    parts = [*under, *drawing.grid(upwards, y, LEFT, right)]
    for value, text in drawing.ticks(*across):
        parts.append(drawing.line("grid", x(value), TOP, x(value), bottom))
        parts.append(drawing.words("tick", x(value), bottom + 16, "middle", text))
    parts.append(drawing.words("tick", (LEFT + right) / 2, HEIGHT - 10, "middle", "learning accuracy →"))
    parts.append(drawing.words("tick", LEFT, TOP - 12, "start", "↑ backward transfer"))
    boxes = [(x(one.learned) - 6, y(one.kept) - 6, 12.0, 12.0) for one in methods]
    for one in methods:
        at, up = x(one.learned), y(one.kept)
        if one.learned_interval is not None:
            first, last = (x(end) for end in one.learned_interval)
            parts.append(drawing.line("whisker", first, up, last, up))
            boxes.append((first, up - 1, last - first, 2))
        if one.kept_interval is not None:
            last, first = (y(end) for end in one.kept_interval)
            parts.append(drawing.line("whisker", at, first, at, last))
            boxes.append((at - 1, first, 2, last - first))
    if joint is not None:
        first, last = max(joint.learned(upwards[1]), across[0]), min(joint.learned(upwards[0]), across[1])
        if first < last:
            ends = [(x(learned), y(joint.kept(learned))) for learned in (first, last)]
            parts.append(drawing.line("majority", *ends[0], *ends[1]))
            parts.append(drawing.words("tick", ends[0][0] + 8, ends[0][1] - 3, "start", "joint"))
            boxes.append((ends[0][0] + 8, ends[0][1] - 14, 5 * drawing.CHARACTER, 13.0))
    series: dict[str, list[Balance]] = {}
    for one in methods:
        series.setdefault(one.series or one.name, []).append(one)
    for joined in series.values():
        for one, following in itertools.pairwise(joined):
            ends = [(x(place.learned), y(place.kept)) for place in (one, following)]
            parts.append(drawing.line("series", *ends[0], *ends[1]))
    for one in methods:
        told = f"{one.name}: {number(one.learned)} learned, {signed(one.kept)} since"
        parts.append(drawing.dot("left", x(one.learned), y(one.kept), 5, told))
    for name, joined in sorted(series.items(), key=lambda item: -item[1][0].kept):
        parts.append(drawing.label(name, x(joined[0].learned), y(joined[0].kept), boxes, LEFT, right))
    return drawing.svg("balance", WIDTH, HEIGHT, LABEL, parts)


def _scale(values: Sequence[float]) -> Interval:
    """An axis that holds all values with some room at both ends."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or 0.05
    return low - margin, high + margin
