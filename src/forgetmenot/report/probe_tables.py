"""Tables of probe results, for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.record.layer_map import LAYERS
from forgetmenot.report.layer_table import print_layer_maps
from forgetmenot.report.wording import number, signed


def print_probes(
    probes: Mapping[str, Mapping[str, Any]], console: Console, *, in_sequence: bool = True
) -> None:
    """Print a table for each probe: stages × parts, and the mean change against the base; of `layers` a map.

    Args:
        probes: As under "probes" in `results.json`.
        console: Where to print.
        in_sequence: Whether each stage of the run went on from the one before.
    """
    for name, found in probes.items():
        if name == LAYERS:
            print_layer_maps(found, console, in_sequence=in_sequence)
        else:
            console.print(_table(name, found))
        for gap in found["missing"]:
            console.print(Text(f"{gap['part']} after {gap['stage']}: {gap['reason']}", style="dim"))


def print_probes_by_part(probes: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print a table for each probe: parts × models, for the few models of a check.

    Args:
        probes: As under "probes" in `check.json`.
        console: Where to print.
    """
    for name, found in probes.items():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(Text(name), overflow="fold")
        for model in found["stages"]:
            table.add_column(Text(model), overflow="fold", justify="right")
        for k, part in enumerate(found["parts"]):
            title = Text(part).append(f"\n{found['metrics'][part]}", style="dim")
            table.add_row(title, *(number(row[k]) for row in found["values"]))
        console.print(table, "", sep="\n")
        for gap in found["missing"]:
            console.print(Text(f"{gap['part']} of {gap['stage']}: {gap['reason']}", style="dim"))


def _table(name: str, found: Mapping[str, Any]) -> Table:
    delta = found["delta"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.title = Text(f"\n{name}", style="bold")
    table.add_column("after stage", no_wrap=True)
    for part in found["parts"]:
        header = Text(f"{part}\n").append(found["metrics"][part], style="not bold dim")
        table.add_column(header, overflow="fold")
    if delta is not None:
        table.add_column(Text(f"{delta['name']} delta\n").append("mean change", style="not bold dim"))
    for i, stage in enumerate(found["stages"]):
        cells = [number(value) for value in found["values"][i]]
        if delta is not None:
            change = delta["values"][i]
            style = "red" if change is not None and change < 0 else ""
            table.add_row(stage, *cells, Text(signed(change), style=style))
        else:
            table.add_row(stage, *cells)
    return table
