"""The figures of a comparison as inline SVG: size against a figure, and a figure by the levels of a key."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report import drawing
from forgetmenot.report.wording import number


@dataclass(frozen=True)
class Point:
    """One model: its parameters, a figure, and how far that lies from its mean over the runs."""

    name: str
    parameters: float
    value: float
    deviation: float | None = None


def scatter(points: Sequence[Point], label: str) -> Markup:
    """A figure against the number of parameters, on a logarithmic axis from a round number to a round one.

    Args:
        points: At least one.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 640, 300, 34, 12, 14, 28
    sizes = [math.log10(point.parameters) for point in points]
    x = drawing.axis(min(sizes) - 0.15, max(sizes) + 0.15, left, width - right)
    ends = [end for p in points for end in (p.value - (p.deviation or 0), p.value + (p.deviation or 0))]
    scale = from_zero(ends)
    y = drawing.axis(*scale, height - bottom, top)
    parts = drawing.grid(scale, y, left, width - right)
    for size, text in _sizes(min(sizes) - 0.15, max(sizes) + 0.15):
        parts.append(drawing.line("grid", x(size), top, x(size), height - bottom))
        parts.append(drawing.words("tick", x(size), height - 8, "middle", text))
    boxes = [(x(math.log10(p.parameters)) - 6, y(p.value) - 6, 12.0, 12.0) for p in points]
    for point in sorted(points, key=lambda one: one.value):
        at, up = x(math.log10(point.parameters)), y(point.value)
        if point.deviation:
            low, high = y(point.value - point.deviation), y(point.value + point.deviation)
            parts.append(drawing.line("whisker", at, low, at, high))
        parts.append(drawing.dot("dot own", at, up, 5, f"{point.name}: {number(point.value)}"))
        parts.append(drawing.label(point.name, at, up, boxes, left, width - right))
    return drawing.svg("scatter", width, height, label, parts)


def strips(levels: Sequence[tuple[str, Sequence[float]]], scale: Interval, label: str) -> Markup:
    """A figure of every run by the level of one key: a small dot each, a large one for their mean.

    Args:
        levels: What stands below the axis, and the runs' figures.
        scale: The lowest and highest figure of the axis.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 260, 170, 34, 6, 10, 24
    x = drawing.axis(-0.5, len(levels) - 0.5, left, width - right)
    y = drawing.axis(*scale, height - bottom, top)
    parts = drawing.grid(scale, y, left, width - right)
    fit = all(len(name) * drawing.CHARACTER <= x(1) - x(0) for name, _ in levels)
    for k, (name, values) in enumerate(levels):
        parts.append(drawing.words("tick", x(k), height - 7, "middle", name if fit else str(k + 1)))
        for value in values:
            parts.append(drawing.dot("dot before", x(k), y(value), 2.5, f"{name}: {number(value)}"))
        if values:
            mean = sum(values) / len(values)
            parts.append(drawing.line("mean", x(k) - 12, y(mean), x(k) + 12, y(mean)))
    return drawing.svg("strips", width, height, label, parts)


def from_zero(values: Sequence[float]) -> Interval:
    """An axis that holds 0 and all values, with some room above."""
    low, high = min(0.0, *values), max(0.0, *values)
    return (low * 1.08, high * 1.08) if high > low else (0.0, 1.0)


def _sizes(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers of parameters within an axis of powers of ten: 1, 2 and 5 of each, or 1 where crowded."""
    factors = (1, 2, 5) if high - low < 1.7 else (1, 3) if high - low < 3 else (1,)
    marks = [
        factor * 10**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors
    ]
    return [(math.log10(mark), size_text(mark)) for mark in marks if low <= math.log10(mark) <= high]


def size_text(parameters: float) -> str:
    """A number of parameters as people say it: 494M, 7B."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return f"{parameters:.0f}"
