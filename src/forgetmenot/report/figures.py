"""The report's figures as inline SVG: numbers in, markup out.

Colours and strokes are the style sheet's (classes), so that a figure follows light, dark and print.
"""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from forgetmenot.report.findings import Interval
from forgetmenot.report.wording import MINUS, number

Axis = Callable[[float], float]

CHARACTER = 6.8  # width of one character of an axis label, in SVG units
STRIP, MIDDLE = 220, 13  # the width of a figure of one line, and half its height
POINTS = 160  # as many as a small figure can show


def curve(
    scores: Sequence[float | None],
    spans: Sequence[Interval | None],
    stage_labels: Sequence[str],
    own: int | None,
    majority: float | None,
    scale: Interval,
    connected: bool,
    label: str,
) -> Markup:
    """One task's scores over the stages: line, interval band, majority line, and where it was trained.

    Args:
        scores: One per stage; None is a gap.
        spans: The 95 % interval of each score.
        stage_labels: What stands below the axis, one per stage.
        own: The index of the stage that trained the task.
        majority: The score of the majority class.
        scale: The lowest and highest score of the axis.
        connected: Whether each stage went on from the one before, so that a line has a meaning.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 260, 170, 30, 6, 24, 24
    x = _axis(0, max(len(scores) - 1, 1), left, width - right)
    y = _axis(*scale, height - bottom, top)
    parts = _grid(scale, y, left, width - right)
    parts += _stage_names(stage_labels, x, height - 7)
    if majority is not None:
        parts.append(_line("majority", left, y(majority), width - right, y(majority)))
    if own is not None:
        parts.append(_line("trained", x(own), top - 6, x(own), height - bottom))
        parts.append(
            _words("note", x(own), top - 10, "end" if own == len(scores) - 1 else "middle", "trained")
        )
    for segment in _unbroken(scores) if connected else []:
        parts += _stretch(segment, scores, spans, own, x, y)
    for i, score in enumerate(scores):
        if score is None:
            continue
        span = spans[i]
        if span and not connected:
            parts.append(_line("whisker", x(i), y(span[0]), x(i), y(span[1])))
        kind = "before" if own is None or i < own else "own" if i == own else "after"
        title = f"{stage_labels[i]}: {number(score)}"
        parts.append(_dot(f"dot {kind}", x(i), y(score), 4.5 if i == own else 3, title))
    return _svg("curve", width, height, label, parts)


def dumbbell(
    base: float | None,
    learned: float | None,
    end: float | None,
    majority: float | None,
    scale: Interval,
    label: str,
) -> Markup:
    """One task in a line: the base model, after its own stage, and at the end."""
    x, parts = _strip(scale, majority)
    if base is not None and learned is not None:
        parts.append(_line("gain", x(base), MIDDLE, x(learned), MIDDLE))
    if learned is not None and end is not None:
        parts.append(_line("drop" if end < learned else "gain", x(learned), MIDDLE, x(end), MIDDLE))
    if base is not None:
        parts.append(_dot("dot base", x(base), MIDDLE, 4, f"base model: {number(base)}"))
    if learned is not None:
        parts.append(_dot("dot own", x(learned), MIDDLE, 5, f"after its own stage: {number(learned)}"))
    if end is not None:
        corners = [(x(end), MIDDLE - 6.0), (x(end) + 6, MIDDLE), (x(end), MIDDLE + 6), (x(end) - 6, MIDDLE)]
        parts.append(f'<polygon class="dot end" points="{_points(corners)}"/>')
    return _svg("dumbbell", STRIP, 2 * MIDDLE, label, parts)


def whisker(
    value: float, interval: Interval | None, majority: float | None, scale: Interval, best: bool, label: str
) -> Markup:
    """One score with its interval on a line, beside others on the same scale."""
    x, parts = _strip(scale, majority)
    if interval is not None:
        parts.append(_line("whisker", x(interval[0]), MIDDLE, x(interval[1]), MIDDLE))
    parts.append(
        _dot(f"dot {'own' if best else 'before'}", x(value), MIDDLE, 5 if best else 4, number(value))
    )
    return _svg("dumbbell", STRIP, 2 * MIDDLE, label, parts)


def loss_line(losses: Sequence[tuple[float, float]], highest: float, label: str) -> Markup:
    """The training loss over the steps of one stage, averaged down to what a small figure can show.

    Args:
        losses: (step, loss) in order, at least one.
        highest: The top of the axis, common to all stages.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 260, 120, 30, 6, 10, 24
    first, last = losses[0][0], losses[-1][0]
    x = _axis(first, max(last, first + 1), left, width - right)
    y = _axis(0, highest, height - bottom, top)
    size = math.ceil(len(losses) / POINTS)
    buckets = [losses[i : i + size] for i in range(0, len(losses), size)]
    line = [
        (x(sum(step for step, _ in bucket) / len(bucket)), y(sum(loss for _, loss in bucket) / len(bucket)))
        for bucket in buckets
    ]
    parts = [
        *_grid((0, highest), y, left, width - right),
        _words("tick", left, height - 7, "start", f"step {first:,.0f}"),
        _words("tick", width - right, height - 7, "end", f"{last:,.0f}"),
        f'<polyline class="line loss" points="{_points(line)}"/>',
    ]
    return _svg("losses", width, height, label, parts)


def score_scale(values: Sequence[float]) -> Interval:
    """The axis that holds all scores: whole tenths, up to 1 for scores that cannot exceed it."""
    low, high = min(values), max(values)
    if max(abs(low), abs(high)) <= 1:
        return min(math.floor(low * 10 - 1e-9) / 10, 0.9), 1.0
    margin = (high - low) * 0.08 or 1.0
    return low - margin, high + margin


def _stretch(
    segment: Sequence[int],
    scores: Sequence[float | None],
    spans: Sequence[Interval | None],
    own: int | None,
    x: Axis,
    y: Axis,
) -> list[str]:
    """The band and the line over stages without a gap; the line changes colour where the task was trained."""
    parts = []
    known = [(i, span) for i in segment if (span := spans[i])]
    if len(known) > 1:
        edge = [(x(i), y(span[1])) for i, span in known] + [(x(i), y(span[0])) for i, span in reversed(known)]
        parts.append(f'<polygon class="band" points="{_points(edge)}"/>')
    points = [(i, (x(i), y(score))) for i in segment if (score := scores[i]) is not None]
    before = [point for i, point in points if own is None or i <= own]
    after = [point for i, point in points if own is not None and i >= own]
    for kind, line in (("before", before), ("after", after)):
        if len(line) > 1:
            parts.append(f'<polyline class="line {kind}" points="{_points(line)}"/>')
    return parts


def _unbroken(scores: Sequence[float | None]) -> list[list[int]]:
    """The stretches of stages without a missing score."""
    stretches: list[list[int]] = [[]]
    for i, score in enumerate(scores):
        if score is None:
            stretches.append([])
        else:
            stretches[-1].append(i)
    return [stretch for stretch in stretches if stretch]


def _strip(scale: Interval, majority: float | None) -> tuple[Axis, list[str]]:
    """The axis and the ground of a figure of one line."""
    pad = 8
    x = _axis(*scale, pad, STRIP - pad)
    parts = [_line("grid", pad, MIDDLE, STRIP - pad, MIDDLE)]
    if majority is not None:
        parts.append(_line("majority", x(majority), 2, x(majority), 2 * MIDDLE - 2))
    return x, parts


def _axis(low: float, high: float, start: float, end: float) -> Axis:
    """The linear map from [low, high] to [start, end]."""
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _grid(scale: Interval, y: Axis, left: float, right: float) -> list[str]:
    parts = []
    for value, text in _ticks(*scale):
        parts.append(_line("grid", left, y(value), right, y(value)))
        parts.append(_words("tick", left - 6, y(value) + 3.5, "end", text))
    return parts


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values inside the axis, at most six, with their labels."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    counts = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(k * step, f"{k * step:.{decimals}f}".replace("-", MINUS)) for k in counts]


def _stage_names(labels: Sequence[str], x: Axis, baseline: float) -> list[str]:
    """The names of the stages where they fit side by side, else their numbers."""
    room = x(1) - x(0)
    if all(len(label) * CHARACTER <= room for label in labels):
        return [
            _words("tick", x(i), baseline, _anchor(i, len(labels)), label) for i, label in enumerate(labels)
        ]
    every = math.ceil(18 / room)
    return [_words("tick", x(i), baseline, "middle", str(i)) for i in range(0, len(labels), every)]


def _anchor(i: int, count: int) -> str:
    """Where a label hangs on its point, so that the outer ones stay inside the figure."""
    return "start" if i == 0 else "end" if i == count - 1 else "middle"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _words(kind: str, x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(kind: str, x: float, y: float, radius: float, title: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="{kind}" {place}><title>{escape(title)}</title></circle>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(name: str, width: int, height: int, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
