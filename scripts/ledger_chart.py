"""One table of the ledger as a picture: what each method learned, and what is left in the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report import drawing
from forgetmenot.report.wording import number

LABEL = "What each method learned, and what is left of it in the end"
WIDTH, ROW, TOP, BOTTOM, RIGHT = 760, 22, 46, 30, 16
STYLE = """<style>
:root {
  --ink: #1b2433; --soft: #56627a; --rule: #dde4ef; --paper: #fbfcfe; --blue: #2f63b8; --rust: #b03c12;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6ebf4; --soft: #9eabc2; --rule: #2a3242; --paper: #12161f; --blue: #86b1f7; --rust: #f39a73;
  }
}
.paper { fill: var(--paper); }
text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.name { fill: var(--ink); }
.grid { stroke: var(--rule); }
.majority { stroke: var(--soft); stroke-dasharray: 2 3; }
.drop { stroke: var(--rust); stroke-width: 3; }
.gain { stroke: var(--blue); stroke-width: 3; opacity: .5; }
.whisker { stroke: var(--soft); stroke-width: 1; }
.learned { fill: var(--paper); stroke: var(--blue); stroke-width: 2; }
.left { fill: var(--blue); }
</style>"""


@dataclass(frozen=True)
class Bar:
    """One method: its mean learning accuracy, its mean AP, where that is defined, and the AP's interval."""

    name: str
    learned: float
    left: float | None
    interval: Interval | None


def chart(bars: Sequence[Bar], majority: float | None) -> str:
    """An SVG file: a line for each method, from what it learned (ring) to what is left in the end (dot).

    Args:
        bars: From the top down; at least one.
        majority: The mean score of always the commonest answer; dashed.
    """
    left = max(len(bar.name) for bar in bars) * drawing.CHARACTER + 16
    height = TOP + ROW * len(bars) + BOTTOM
    ends = [end for bar in bars for end in (bar.learned, bar.left, *(bar.interval or ())) if end is not None]
    scale = (min(ends) - 0.02, max(ends) + 0.02)
    x = drawing.axis(*scale, left, WIDTH - RIGHT)
    parts = [STYLE, f'<rect class="paper" width="{WIDTH}" height="{height}"/>', *_legend(left)]
    for value, text in drawing.ticks(*scale):
        parts.append(drawing.line("grid", x(value), TOP - 6, x(value), height - BOTTOM))
        parts.append(drawing.words("tick", x(value), height - BOTTOM + 16, "middle", text))
    if majority is not None and scale[0] < majority < scale[1]:
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
    svg = str(drawing.svg("ledger", WIDTH, height, LABEL, parts))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _legend(left: float) -> list[str]:
    parts, at = [], left
    for kind, text in (("learned", "learning accuracy"), ("left", "average performance in the end")):
        parts += [drawing.dot(kind, at + 5, 18, 5, text), drawing.words("tick", at + 16, 22, "start", text)]
        at += len(text) * drawing.CHARACTER + 36
    parts.append(drawing.line("majority", at, 18, at + 18, 18))
    parts.append(drawing.words("tick", at + 24, 22, "start", "majority class"))
    return parts
