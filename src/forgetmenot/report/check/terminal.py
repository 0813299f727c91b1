"""A check in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.check.words import STATUS, headline, noise_words, rows, titles, where_lost
from forgetmenot.report.probe_tables import print_probes
from forgetmenot.report.verdict_words import (
    KINDS,
    difference_words,
    interval_words,
    margin_words,
    move,
)

STYLES = {"lost": "bold red", "won": "green", "held": "", "open": "yellow"}


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
    print_probes(content.get("probes", {}), console)
    for told in noise_words(content):
        console.print(Text(told, style="dim"))
    style = {0: "green", 1: "bold red", 3: "yellow"}[content["status"]]
    console.print(Text.assemble((STATUS[content["status"]], style), ". ", (headline(content), "bold")))
    for told in where_lost(content):
        console.print(Text(told))


def _table(content: Mapping[str, Any], verdicts: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("task", overflow="fold", max_width=20)
    for title in ("verdict", "score", "change, 95 %", "margin, n"):
        table.add_column(title, overflow="fold")
    for row in rows(content, verdicts):
        verdict, metric = row["verdict"], row["metric"]
        change = Text(difference_words(verdict, metric))
        table.add_row(
            Text(row["task"]).append(f"\n{metric.replace('_', ' ')}", style="dim"),
            Text(row["words"], style=STYLES[KINDS[verdict["decision"]]]),
            move(verdict["before"], verdict["after"], metric),
            change.append(f"\n{interval_words(verdict, metric)}", style="dim"),
            Text(margin_words(verdict["margin"], metric)).append(f"\nn = {verdict['n']:,}", style="dim"),
        )
    return table
