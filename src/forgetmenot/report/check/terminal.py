"""A check in a terminal: the tables first, and last, where a reader's eye is, whether it may ship."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.check.words import STATUS, noise_words, rows, sentences, titles, where_lost
from forgetmenot.report.probe_tables import print_probes_by_part
from forgetmenot.report.verdict_words import (
    KINDS,
    difference_words,
    interval_words,
    margin_words,
    needed_words,
    score_change,
    short_words,
)
from forgetmenot.report.wording import NO_BREAK

STYLES = {"lost": "bold red", "won": "green", "held": "", "open": "yellow"}
PER_TOKEN = " per token"
"""Said once, beside the metric, so that a row fits into 80 columns."""


def print_check(content: Mapping[str, Any], console: Console) -> None:
    """Print the verdict on each task, each step of a chain, the noise of the path, and the whole.

    Args:
        content: That of check.json.
        console: Where to print.
    """
    names = titles(content)
    if len(content["steps"]) > 1:
        for step in content["steps"]:
            console.print(Text(f"{step['before']} → {step['after']} ({step['kind']})", style="bold"))
            console.print(_table(content, step["verdicts"]), "", sep="\n")
    console.print(Text(f"{names[0]} → {names[-1]}", style="bold"))
    console.print(_table(content, content["verdicts"]), "", sep="\n")
    print_probes_by_part(content.get("probes", {}), console)
    for told in noise_words(content):
        console.print(Text(told, style="dim"))
    status = content["status"]
    style = {0: "bold green", 1: "bold red", 3: "bold yellow"}[status]
    pair = f": {names[0]} → {names[-1]}"
    console.print()
    console.print(Text.assemble((STATUS[status].upper(), style), (pair, "bold"), f" (exit status {status})"))
    for told in [*sentences(content), *where_lost(content)]:
        console.print(Text(told))


def _table(content: Mapping[str, Any], verdicts: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("task", overflow="fold", max_width=20)
    table.add_column("verdict", overflow="fold", max_width=22)
    for title in ("score", "change, 95 %", "margin, n"):
        table.add_column(title, overflow="fold")
    for row in rows(content, verdicts):
        verdict, metric = row["verdict"], row["metric"]
        margin = margin_words(verdict["margin"], metric)
        per = PER_TOKEN if margin.endswith(PER_TOKEN) else ""
        score, unit = score_change(verdict["before"], verdict["after"], metric)
        needed = needed_words(verdict) if verdict["decision"] == "cannot tell" else ""
        if needed:
            needed = f"needs {needed.removesuffix(' would do')}"
        table.add_row(
            _two(row["task"], metric.replace("_", " ") + per),
            _two(short_words(verdict, metric), needed, STYLES[KINDS[verdict["decision"]]]),
            _two(score, unit),
            _two(difference_words(verdict, metric).removesuffix(per), interval_words(verdict, metric)),
            _two(margin.removesuffix(per), f"n{NO_BREAK}={NO_BREAK}{verdict['n']:,}"),
        )
    return table


def _two(above: str, below: str, style: str = "") -> Text:
    """A cell of two lines, the second one dim."""
    text = Text(above, style=style)
    return text.append(f"\n{below}", style="not bold dim") if below else text
