"""A check as Markdown, for a comment on a pull request."""

from collections.abc import Mapping
from typing import Any

from forgetmenot.report.check.words import STATUS, headline, noise_words, rows, titles, where_lost
from forgetmenot.report.verdict_words import difference_words, interval_words, margin_words, move

SIGNS = {"forgotten": "❌", "cannot tell": "❔", "kept": "✅", "gained": "✅"}
SHOWN = 5


def markdown(content: Mapping[str, Any]) -> str:
    """The verdicts as a table, the headline above it, and a few lost examples below.

    Args:
        content: That of check.json.
    """
    names = titles(content)
    lines = [
        f"## {STATUS[content['status']]}: {_safe(names[0])} → {_safe(names[-1])}",
        "",
        _safe(headline(content)),
        *(_safe(one) for one in where_lost(content)),
        "",
        "| task | verdict | score | difference | 95 % | margin | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(content, content["verdicts"]):
        verdict, metric = row["verdict"], row["metric"]
        cells = [
            f"{row['task']} ({metric.replace('_', ' ')})",
            f"{SIGNS[verdict['decision']]} {row['words']}",
            move(verdict["before"], verdict["after"], metric),
            difference_words(verdict, metric),
            interval_words(verdict, metric),
            margin_words(verdict["margin"], metric),
            f"{verdict['n']:,}",
        ]
        lines.append(f"| {' | '.join(_safe(cell) for cell in cells)} |")
    for told in [*noise_words(content), *content.get("notes", ())]:
        lines += ["", _safe(told)]
    for task, found in content["flips"].items():
        lost = [one for one in found if one["turned"] == "lost"]
        if content["verdicts"][task]["decision"] == "forgotten" and lost:
            lines += ["", f"<details><summary>{_safe(task)}: {len(lost)} examples lost</summary>", ""]
            for one in lost[:SHOWN]:
                said = one["after"] if one["after"] is not None else "no answer"
                lines.append(f"- {_safe(_short(one['text']))}: {_safe(one['before'])} → {_safe(said)}")
            lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _safe(text: str) -> str:
    """A user's text without what Markdown or HTML would take for itself."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_[]|":
        plain = plain.replace(mark, f"\\{mark}")
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("@", "@\N{ZERO WIDTH SPACE}")  # a comment with @someone calls them


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= 160 else f"{text[:159]}…"
