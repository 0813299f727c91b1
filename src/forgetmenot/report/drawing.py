"""Elements of the figures: axes, lines, dots and words as SVG.

Colours and strokes are the style sheet's (classes), so that a figure follows light, dark and print.
"""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report.wording import MINUS

Axis = Callable[[float], float]
Box = tuple[float, float, float, float]
"""What something covers: its left, its top, its width and its height."""

CHARACTER = 6.8  # width of one character of an axis label, in SVG units


def axis(low: float, high: float, start: float, end: float) -> Axis:
    """The linear map from [low, high] to [start, end]."""
    return lambda value: start + (end - start) * (value - low) / (high - low)


def grid(scale: Interval, y: Axis, left: float, right: float) -> list[str]:
    """The horizontal lines of a figure at round values, with their labels on the left."""
    parts = []
    for value, text in ticks(*scale):
        parts.append(line("grid", left, y(value), right, y(value)))
        parts.append(words("tick", left - 6, y(value) + 3.5, "end", text))
    return parts


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values inside the axis, at most six, with their labels."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    counts = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(k * step, f"{k * step:.{decimals}f}".replace("-", MINUS)) for k in counts]


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line of a class of the style sheet."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def words(kind: str, x: float, y: float, anchor: str, text: str) -> str:
    """A text at a point; `anchor` is SVG's: start, middle or end."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def dot(kind: str, x: float, y: float, radius: float, title: str) -> str:
    """A circle that says `title` where the pointer rests."""
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="{kind}" {place}><title>{escape(title)}</title></circle>'


def points(corners: Sequence[tuple[float, float]]) -> str:
    """The corners of a polygon or a polyline, as its attribute holds them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def svg(name: str, width: int, height: int, label: str, parts: Sequence[str]) -> Markup:
    """The whole figure; `label` is what a screen reader says."""
    return Markup(
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def label(name: str, at: float, up: float, boxes: list[Box], left: float, right: float) -> str:
    """A point's name, beside, above or below, where it covers nothing that is there, or least.

    Args:
        name: The words.
        at: The point's place from the left.
        up: The point's place from the top.
        boxes: What is there already; what the name covers is added.
        left: Where the figure begins.
        right: Where it ends.
    """
    wide = len(name) * CHARACTER
    places = [("start", at + 9, up + 4), ("end", at - 9, up + 4)]
    places += [(side, at + dx, up + dy) for dy in (-7, 16) for side, dx in (("start", 7), ("end", -7))]
    places += [
        (side, at + dx, up + dy) for dy in (-11, 19, -24, 32) for side, dx in (("start", -4), ("end", 4))
    ]
    fitting = []
    for anchor, x, y in places:
        start = x if anchor == "start" else x - wide
        if start >= left and start + wide <= right:
            fitting.append((anchor, x, y, (start, y - 11.0, wide, 13.0)))
    if not fitting:
        fitting = [("middle", at, up - 11, (at - wide / 2, up - 22.0, wide, 13.0))]
    anchor, x, y, box = min(fitting, key=lambda place: sum(_covered(place[3], there) for there in boxes))
    boxes.append(box)
    return words("tick", x, y, anchor, name)


def _covered(a: Box, b: Box) -> float:
    """The area that two boxes have in common."""
    wide, high = (min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return max(wide, 0.0) * max(high, 0.0)
