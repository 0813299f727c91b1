"""The maps of the probe `layers` in a terminal: a line for each task and stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.record.layer_map import LAYERS, layer_maps
from forgetmenot.report.wording import number, span

SPARKS = "▁▂▃▄▅▆▇█"


def print_layer_maps(found: Mapping[str, Any], console: Console, *, in_sequence: bool = True) -> None:
    """Print a line for each task and stage: how the likeness to the base falls over the layers.

    Args:
        found: As under "probes", "layers" in `results.json`.
        console: Where to print.
        in_sequence: Whether each stage went on from the one before.
    """
    for one in layer_maps(found, in_sequence=in_sequence):
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left"
        )
        table.title = Text(f"\n{LAYERS}: {one.task or 'prompts'}, {one.n} inputs", style="bold")
        for title in (
            "after stage",
            "change from the base, by layer",
            "least alike",
            "rewritten by the stage",
        ):
            table.add_column(title, overflow="fold")
        for i, stage in enumerate(one.stages[1:], start=1):
            place = one.least_alike(i)
            least = ""
            if place is not None:
                interval = one.spans[i][place]
                least = f"layer {one.layers[place]}: {number(one.base[i][place])}"
                least += f" {span(interval)}" if interval else ""
            table.add_row(stage, _sparks(one.base[i]), Text(least), Text(numbered(one.rewritten(i))))
        console.print(table)
        for i, stage in enumerate(one.stages):
            if held := one.holds(i):
                console.print(
                    Text(f"{stage}: more like the control than the base is in {numbered(held)}.", "dim")
                )


def numbered(layers: Sequence[int]) -> str:
    """Layers in words: "layers 3–5 and 9"."""
    stretches: list[list[int]] = []
    for layer in layers:
        if stretches and layer == stretches[-1][-1] + 1:
            stretches[-1].append(layer)
        else:
            stretches.append([layer])
    told = [f"{one[0]}–{one[-1]}" if len(one) > 1 else str(one[0]) for one in stretches]
    if not told:
        return ""
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(told)}"


def _sparks(row: Sequence[float | None]) -> Text:
    """1 − likeness as bars, one for each layer."""
    text = Text()
    for value in row:
        change = None if value is None else min(max(1 - value, 0.0), 1.0)
        text.append("·" if change is None else SPARKS[min(int(change * len(SPARKS)), len(SPARKS) - 1)])
    return text
