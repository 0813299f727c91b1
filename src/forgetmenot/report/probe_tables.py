"""Tables of probe results, for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.record.layer_map import LAYERS
from forgetmenot.report.layer_table import print_layer_maps
from forgetmenot.report.wording import number, signed

LEAST_WIDTH = 14
"""Characters of a column in which the names of parts and metrics can be read; ours."""


def print_probes(
    probes: Mapping[str, Mapping[str, Any]], console: Console, *, in_sequence: bool = True
) -> None:
    """Print a table for each probe: stages × parts, and the mean change against the base; of `layers` a map.

    Of many parts, which have no room beside one another, it is parts × stages.

    Args:
        probes: As under "probes" in `results.json`.
        console: Where to print.
        in_sequence: Whether each stage of the run went on from the one before.
    """
    for name, found in probes.items():
        if name == LAYERS:
            print_layer_maps(found, console, in_sequence=in_sequence)
        elif LEAST_WIDTH * (len(found["parts"]) + 2) <= console.width:
            console.print(_by_stage(name, found))
        else:  # narrower columns would cut words into pieces
            console.print("", _by_part(name, found), sep="\n")
        for gap in found["missing"]:
            console.print(Text(f"{gap['part']} after {gap['stage']}: {gap['reason']}", style="dim"))


def print_probes_by_part(probes: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print a table for each probe: parts × models, for the few models of a check.

    Args:
        probes: As under "probes" in `check.json`.
        console: Where to print.
    """
    for name, found in probes.items():
        console.print(_by_part(name, found), "", sep="\n")
        for gap in found["missing"]:
            console.print(Text(f"{gap['part']} of {gap['stage']}: {gap['reason']}", style="dim"))


def _by_part(name: str, found: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(name), overflow="fold")
    for model in found["stages"]:
        table.add_column(Text(model), overflow="fold", justify="right")
    for k, part in enumerate(found["parts"]):
        title = Text(part).append(f"\n{found['metrics'][part]}", style="dim")
        table.add_row(title, *(number(row[k]) for row in found["values"]))
    if (delta := found.get("delta")) is not None:
        title = Text(f"{delta['name']} delta").append("\nmean change", style="dim")
        table.add_row(title, *(_change(value) for value in delta["values"]))
    return table


def _change(value: float | None) -> Text:
    return Text(signed(value), style="red" if value is not None and value < 0 else "")


def _by_stage(name: str, found: Mapping[str, Any]) -> Table:
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
            table.add_row(stage, *cells, _change(delta["values"][i]))
        else:
            table.add_row(stage, *cells)
    return table
