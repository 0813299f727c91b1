"""The figures of sentence embeddings, for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.wording import number, span

TITLES = {
    "sts12": "STS12",
    "sts13": "STS13",
    "sts14": "STS14",
    "sts15": "STS15",
    "sts16": "STS16",
    "stsb": "STS-B dev",
    "stsb-test": "STS-B test",
    "sick-r": "SICK-R",
    "sst2": "SST-2",
    "mrpc": "MRPC",
}
HUNDREDS = "Spearman's correlation over all pairs of a set, and accuracy; the papers print both times 100."


def print_embeddings(found: Mapping[str, Any], console: Console) -> None:
    """Print an embeddings.json: each set with its interval, and the mean of the similarities."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("set", "value", "95 % interval", "n"):
        table.add_column(title, justify="left" if title == "set" else "right")
    for one in (*found["similarity"], *found["transfer"]):
        value = number(one["value"]) if one["value"] is not None else one["reason"]
        table.add_row(TITLES[one["name"]], Text(value), span(one["interval"]), f"{one['n']:,}")
    console.print(table)
    if found["mean"] is not None:
        console.print(Text(f"Mean of the {len(found['similarity'])} similarities: {number(found['mean'])}"))
    if found["demonstration_search"]:
        first = found["demonstration_search"][0]
        said = (
            f"Demonstration: {first['sentence']!r} → {first['word']!r}, {number(first['dev'])} on STS-B dev"
        )
        console.print(Text(f"{said}, the best of {len(found['demonstration_search'])}."))
    console.print(Text(HUNDREDS, style="dim"))
