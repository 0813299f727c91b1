"""What each method learned and what is left of it in the end: a picture of lines, and one of two axes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report import drawing
from forgetmenot.report.wording import number

LABEL = "What each method learned, and what is left of it in the end"
WIDTH, ROW, TOP, BOTTOM, RIGHT = 760, 22, 46, 30, 16


@dataclass(frozen=True)
class Bar:
    """One method: its mean learning accuracy, its mean AP, where that is defined, and the AP's interval."""

    name: str
    learned: float
    left: float | None
    interval: Interval | None


def bars_picture(bars: Sequence[Bar], majority: float | None, under: Sequence[str] = ()) -> Markup:
    """A line for each method, from what it learned (ring) to what is left in the end (dot), as SVG.

    Args:
        bars: From the top down; at least one.
        majority: The mean score of always the commonest answer; dashed.
        under: Elements below all others.
    """
    left = max(len(bar.name) for bar in bars) * drawing.CHARACTER + 16
    height = picture_height(bars)
    ends = [end for bar in bars for end in (bar.learned, bar.left, *(bar.interval or ())) if end is not None]
    scale = (min(ends) - 0.02, max(ends) + 0.02)
    x = drawing.axis(*scale, left, WIDTH - RIGHT)
    shown = majority is not None and scale[0] < majority < scale[1]
    parts = [*under, *_legend(left, majority=shown)]
    for value, text in drawing.ticks(*scale):
        parts.append(drawing.line("grid", x(value), TOP - 6, x(value), height - BOTTOM))
        parts.append(drawing.words("tick", x(value), height - BOTTOM + 16, "middle", text))
    if majority is not None and shown:
        parts.append(drawing.line("majority", x(majority), TOP - 6, x(majority), height - BOTTOM))
    for k, bar in enumerate(bars):
        y = TOP + ROW * (k + 0.5)
        parts.append(drawing.words("name", left - 12, y + 4, "end", bar.name))
        if bar.interval is not None:
            parts.append(drawing.line("whisker", x(bar.interval[0]), y, x(bar.interval[1]), y))
        if bar.left is not None:
            kind = "drop" if bar.left < bar.learned else "gain"
            parts.append(drawing.line(kind, x(bar.learned), y, x(bar.left), y))
        parts.append(
            drawing.dot("learned", x(bar.learned), y, 5, f"{bar.name}: {number(bar.learned)} learned")
        )
        if bar.left is not None:
            parts.append(drawing.dot("left", x(bar.left), y, 5, f"{bar.name}: {number(bar.left)} in the end"))
    return drawing.svg("bars", WIDTH, height, LABEL, parts)


def picture_height(bars: Sequence[Bar]) -> int:
    """How high the picture is, in SVG units."""
    return TOP + ROW * len(bars) + BOTTOM


def _legend(left: float, *, majority: bool) -> list[str]:
    parts, at = [], left
    for kind, text in (("learned", "learning accuracy"), ("left", "average performance in the end")):
        parts += [drawing.dot(kind, at + 5, 18, 5, text), drawing.words("tick", at + 16, 22, "start", text)]
        at += len(text) * drawing.CHARACTER + 36
    if majority:
        parts.append(drawing.line("majority", at, 18, at + 18, 18))
        parts.append(drawing.words("tick", at + 24, 22, "start", "majority class"))
    return parts
