"""The report's figures as inline SVG: numbers in, markup out."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from forgetmenot.metrics.resampling import Interval
from forgetmenot.report import drawing
from forgetmenot.report.drawing import Axis
from forgetmenot.report.wording import number

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
        majority: The chance level.
        scale: The lowest and highest score of the axis.
        connected: Whether each stage went on from the one before, so that a line has a meaning.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 260, 170, 30, 6, 24, 24
    x = drawing.axis(0, max(len(scores) - 1, 1), left, width - right)
    y = drawing.axis(*scale, height - bottom, top)
    parts = drawing.grid(scale, y, left, width - right)
    parts += _stage_names(stage_labels, x, height - 7)
    if majority is not None:
        parts.append(drawing.line("majority", left, y(majority), width - right, y(majority)))
    if own is not None:
        parts.append(drawing.line("trained", x(own), top - 6, x(own), height - bottom))
        parts.append(
            drawing.words("note", x(own), top - 10, "end" if own == len(scores) - 1 else "middle", "trained")
        )
    for segment in _unbroken(scores) if connected else []:
        parts += _stretch(segment, scores, spans, own, x, y)
    for i in points_told(len(scores), own):
        score, span = scores[i], spans[i]
        if score is None:
            continue
        if span and not connected:
            parts.append(drawing.line("whisker", x(i), y(span[0]), x(i), y(span[1])))
        kind = "before" if own is None or i < own else "own" if i == own else "after"
        title = f"{stage_labels[i]}: {number(score)}"
        parts.append(drawing.dot(f"dot {kind}", x(i), y(score), 4.5 if i == own else 3, title))
    return drawing.svg("curve", width, height, label, parts)


def points_told(count: int, own: int | None) -> list[int]:
    """The stages of a curve that have a point and a name of their own: of very many, the ends and its own."""
    return list(range(count)) if count <= POINTS else sorted({0, own or 0, count - 1})


def dumbbell(
    base: float | None,
    learned: float | None,
    end: float | None,
    *,
    majority: float | None,
    scale: Interval,
    lost: bool,
    label: str,
) -> Markup:
    """One task in a line: the base model, after its own stage, the end; `lost` colours the last part."""
    x, parts = _strip(scale, majority)
    if base is not None and learned is not None:
        parts.append(drawing.line("gain", x(base), MIDDLE, x(learned), MIDDLE))
    before = base if learned is None else learned
    if before is not None and end is not None:
        parts.append(drawing.line("drop" if lost else "gain", x(before), MIDDLE, x(end), MIDDLE))
    if base is not None:
        parts.append(drawing.dot("dot base", x(base), MIDDLE, 4, f"base model: {number(base)}"))
    if learned is not None:
        parts.append(drawing.dot("dot own", x(learned), MIDDLE, 5, f"after its own stage: {number(learned)}"))
    if end is not None:
        corners = [(x(end), MIDDLE - 6.0), (x(end) + 6, MIDDLE), (x(end), MIDDLE + 6), (x(end) - 6, MIDDLE)]
        parts.append(f'<polygon class="dot end" points="{drawing.points(corners)}"/>')
    return drawing.svg("dumbbell", STRIP, 2 * MIDDLE, label, parts)


def whisker(
    value: float, interval: Interval | None, majority: float | None, scale: Interval, best: bool, label: str
) -> Markup:
    """One score with its interval on a line, beside others on the same scale."""
    x, parts = _strip(scale, majority)
    if interval is not None:
        parts.append(drawing.line("whisker", x(interval[0]), MIDDLE, x(interval[1]), MIDDLE))
    parts.append(
        drawing.dot(f"dot {'own' if best else 'before'}", x(value), MIDDLE, 5 if best else 4, number(value))
    )
    return drawing.svg("dumbbell", STRIP, 2 * MIDDLE, label, parts)


def loss_line(losses: Sequence[tuple[float, float]], highest: float, label: str) -> Markup:
    """The training loss over the steps of one stage, averaged down to what a small figure can show.

    Args:
        losses: (step, loss) in order, at least one.
        highest: The top of the axis, common to all stages.
        label: What a screen reader says.
    """
    width, height, left, right, top, bottom = 260, 120, 30, 6, 10, 24
    first, last = losses[0][0], losses[-1][0]
    x = drawing.axis(first, max(last, first + 1), left, width - right)
    y = drawing.axis(0, highest, height - bottom, top)
    size = math.ceil(len(losses) / POINTS)
    buckets = [losses[i : i + size] for i in range(0, len(losses), size)]
    line = [
        (x(sum(step for step, _ in bucket) / len(bucket)), y(sum(loss for _, loss in bucket) / len(bucket)))
        for bucket in buckets
    ]
    parts = [
        *drawing.grid((0, highest), y, left, width - right),
        drawing.words("tick", left, height - 7, "start", f"step {first:,.0f}"),
        drawing.words("tick", width - right, height - 7, "end", f"{last:,.0f}"),
        f'<polyline class="line loss" points="{drawing.points(line)}"/>',
    ]
    return drawing.svg("losses", width, height, label, parts)


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
        parts.append(f'<polygon class="band" points="{drawing.points(edge)}"/>')
    points = [(i, (x(i), y(score))) for i in segment if (score := scores[i]) is not None]
    before = [point for i, point in points if own is None or i <= own]
    after = [point for i, point in points if own is not None and i >= own]
    for kind, line in (("before", before), ("after", after)):
        if len(line) > 1:
            parts.append(f'<polyline class="line {kind}" points="{drawing.points(line)}"/>')
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
    x = drawing.axis(*scale, pad, STRIP - pad)
    parts = [drawing.line("grid", pad, MIDDLE, STRIP - pad, MIDDLE)]
    if majority is not None:
        parts.append(drawing.line("majority", x(majority), 2, x(majority), 2 * MIDDLE - 2))
    return x, parts


def _stage_names(labels: Sequence[str], x: Axis, baseline: float) -> list[str]:
    """The names of the stages where they fit side by side, else their numbers."""
    room = x(1) - x(0)
    if all(len(label) * drawing.CHARACTER <= room for label in labels):
        return [
            drawing.words("tick", x(i), baseline, _anchor(i, len(labels)), label)
            for i, label in enumerate(labels)
        ]
    every = math.ceil(18 / room)
    return [drawing.words("tick", x(i), baseline, "middle", str(i)) for i in range(0, len(labels), every)]


def _anchor(i: int, count: int) -> str:
    """Where a label hangs on its point, so that the outer ones stay inside the figure."""
    return "start" if i == 0 else "end" if i == count - 1 else "middle"
