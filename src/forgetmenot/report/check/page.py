"""A check as one HTML page that asks for nothing from outside itself."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from forgetmenot.metrics import metric_named
from forgetmenot.report import drawing
from forgetmenot.report.check.words import STATUS, headline, noise_words, rows, titles, where_lost
from forgetmenot.report.html import template
from forgetmenot.report.verdict_words import (
    KINDS,
    difference_words,
    examples_words,
    interval_words,
    margin_words,
    move,
    needed_words,
    short_words,
)

STATUS_KINDS = {0: "held", 1: "lost", 3: "open"}
WIDTH, MIDDLE = 300, 15
FARTHEST = 6.0  # margins on either side; what lies beyond ends in an arrow


def page(content: Mapping[str, Any]) -> str:
    """The verdict on each task with its picture, each step of a chain, and every answer that turned.

    Args:
        content: That of check.json.
    """
    names = titles(content)
    steps = [
        {
            "title": f"{one['before']} → {one['after']}",
            "kind": one["kind"],
            "rows": _rows(content, one["verdicts"]),
        }
        for one in content["steps"]
    ]
    text: str = template("check.html.jinja").render(
        base=names[0],
        tuned=names[-1],
        status=STATUS[content["status"]],
        status_kind=STATUS_KINDS[content["status"]],
        headline=headline(content),
        where_lost=where_lost(content),
        noise=[*noise_words(content), *content.get("notes", ())],
        rows=_rows(content, content["verdicts"]),
        steps=steps if len(steps) > 1 else [],
        sides=[content["base"], *content["tuned"]],
        metrics=[
            metric_named(name).formula
            for name in dict.fromkeys(one["metric"] for one in content["tasks"].values())
        ],
        probes=content.get("probes", {}),
        flips=_flips(content),
    )
    return text


def interval_strip(verdict: Mapping[str, Any], label: str) -> Markup:
    """A task's difference and interval on a scale of margins: the line of no change, and that of −ε.

    Args:
        verdict: An entry of `verdicts`.
        label: What a screen reader says.
    """
    x = drawing.axis(-FARTHEST, FARTHEST, 8, WIDTH - 8)
    parts = [
        drawing.line("grid", 8, MIDDLE, WIDTH - 8, MIDDLE),
        drawing.line("axis", x(0), 2, x(0), 2 * MIDDLE - 2),
        drawing.line("margin", x(-1), 2, x(-1), 2 * MIDDLE - 2),
    ]
    kind = KINDS[verdict["decision"]]
    if verdict["interval"] is not None:
        low, high = (_within(end / verdict["margin"]) for end in verdict["interval"])
        parts.append(drawing.line(f"whisker {kind}", x(low), MIDDLE, x(high), MIDDLE))
        for end, arrow in zip(verdict["interval"], (-1, 1), strict=True):
            if abs(end / verdict["margin"]) > FARTHEST and (end > 0) == (arrow > 0):
                tip = x(arrow * FARTHEST)
                corners = [(tip + 6 * arrow, MIDDLE), (tip, MIDDLE - 4.0), (tip, MIDDLE + 4.0)]
                parts.append(f'<polygon class="{kind}" points="{drawing.points(corners)}"/>')
    if verdict["difference"] is not None:
        place = _within(verdict["difference"] / verdict["margin"])
        parts.append(drawing.dot(f"dot {kind}", x(place), MIDDLE, 5, label))
    return drawing.svg("strip", WIDTH, 2 * MIDDLE, label, parts)


def _within(margins: float) -> float:
    return min(max(margins, -FARTHEST), FARTHEST)


def _rows(content: Mapping[str, Any], verdicts: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = []
    for row in rows(content, verdicts):
        verdict, metric = row["verdict"], row["metric"]
        difference = difference_words(verdict, metric)
        told.append(
            {
                **row,
                "kind": KINDS[verdict["decision"]],
                "short": short_words(verdict, metric),
                "needed": needed_words(verdict) if verdict["decision"] == "cannot tell" else "",
                "metric_title": metric.replace("_", " "),
                "move": move(verdict["before"], verdict["after"], metric),
                "difference": difference,
                "interval": interval_words(verdict, metric),
                "margin": margin_words(verdict["margin"], metric),
                "examples": examples_words(verdict),
                "picture": interval_strip(verdict, f"{row['task']}: {difference}, {row['words']}"),
            }
        )
    return told


def _flips(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tasks whose answers turned, the most lost margins first, each with its examples."""
    order = [row["task"] for row in rows(content, content["verdicts"])]
    return [
        {
            "task": task,
            "lost": sum(one["turned"] == "lost" for one in content["flips"][task]),
            "gained": sum(one["turned"] == "gained" for one in content["flips"][task]),
            "examples": content["flips"][task],
            "decision": content["verdicts"][task]["decision"],
        }
        for task in order
        if content["flips"][task]
    ]
