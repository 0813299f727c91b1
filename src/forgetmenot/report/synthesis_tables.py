"""The funnel of a synthesis: for a terminal, and as one HTML page."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.html import template

SHOWN = 12
"""Rows, and dropped inputs, that the page shows."""


def print_synthesis(found: Mapping[str, Any], console: Console) -> None:
    """Print what each step of a synthesis.json kept, and why it dropped the rest."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in (found["task"], "entered", "left", "dropped"):
        table.add_column(title, justify="right" if title in ("entered", "left") else "left")
    for step in found["funnel"]:
        table.add_row(
            Text(step["name"]), f"{step['entered']:,}", f"{step['left']:,}", Text(dropped(step) or "none")
        )
    console.print(table)
    console.print(Text(conclusion(found)))


def synthesis_page(found: Mapping[str, Any], rows: Any, candidates: Any) -> str:
    """One HTML page of a synthesis.json that asks for nothing from outside itself.

    Args:
        found: The content of synthesis.json.
        rows: The lines of train.jsonl.
        candidates: The lines of candidates.jsonl.
    """
    steps = [{**step, "reasons": dropped(step), "share": _share(step, found)} for step in found["funnel"]]
    lost = [one for one in candidates if one["dropped"] is not None]
    page: str = template("synthesis.html.jinja").render(
        found=found,
        steps=steps,
        conclusion=conclusion(found),
        rows=[{"input": _input(row), "answer": list(row.values())[-1]} for row in rows[:SHOWN]],
        lost=lost[:: max(1, len(lost) // SHOWN)][:SHOWN],
    )
    return page


def dropped(step: Mapping[str, Any]) -> str:
    """Why a step dropped something, the most frequent reason first."""
    reasons = sorted(step["dropped"].items(), key=lambda pair: -pair[1])
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons if count)


def conclusion(found: Mapping[str, Any]) -> str:
    """How many rows came of it, in a sentence or two."""
    asked, labels = found["funnel"][0]["entered"], found["labels"]
    said = f"{found['task']}: {found['rows']:,} rows of {asked:,} inputs that were written"
    if labels:
        said += f" ({', '.join(f'{label} {count:,}' for label, count in labels.items())})"
    if found["missing_labels"]:
        said += f". No row has the label {', '.join(found['missing_labels'])}"
    if found["as_asked"] is not None:
        said += (
            f". Of the inputs that have a label, {found['as_asked']:.0%} have the one that the model was "
            "asked to write for"
        )
    return f"{said}. Answers are read so: {found['read_by']}."


def _share(step: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """What is left, in percent: of the inputs that were written, or of the outputs."""
    whole: int = step["entered"] if step["unit"] == "outputs" else found["funnel"][0]["entered"]
    left: int = step["left"]
    return 100 * left / max(1, whole)


def _input(row: Mapping[str, Any]) -> str:
    *fields, _ = row.items()
    return str(fields[0][1]) if len(fields) == 1 else "\n".join(f"{name}: {value}" for name, value in fields)
