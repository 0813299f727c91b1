"""What the probe `layers` found, as a map for each task: where it lives, and where it is overwritten."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.metrics.layer_rules import bands, changed_most
from forgetmenot.report.wording import number, span

LAYERS = "layers"
"""The probe's name."""
BETWEEN = " layer "
"""What stands between a task and the number of a layer in the name of a part."""
SPARKS = "▁▂▃▄▅▆▇█"
TWO_SIDED = 2 * 1.96
"""Standard errors that a 95 % interval is wide, about."""


@dataclass(frozen=True)
class LayerMap:
    """One task's inputs through the layers of every stage.

    Attributes:
        task: Its name; "" for a set of prompts.
        stages: Their names, the base first.
        layers: The numbers of the layers, from below.
        base: Likeness to the base model [stages][layers], None where it was not measured.
        spans: Their intervals.
        more: Further figures by name, [stages][layers].
        in_sequence: Whether each stage went on from the one before, and not from the base.
        n: Inputs.
    """

    task: str
    stages: Sequence[str]
    layers: Sequence[int]
    base: Sequence[Sequence[float | None]]
    spans: Sequence[Sequence[tuple[float, float] | None]]
    more: Mapping[str, Sequence[Sequence[float | None]]]
    n: int
    in_sequence: bool = True

    @property
    def by_the_stage(self) -> str:
        """Which figure says what a stage itself changed: since the stage before, or since the base."""
        return "own change of the stage" if self.in_sequence else "own change"

    def least_alike(self, i: int) -> int | None:
        """The place of the layer that is least like the base's after a stage."""
        known = [(value, k) for k, value in enumerate(self.base[i]) if value is not None]
        return min(known)[1] if known else None

    def rewritten(self, i: int) -> list[int]:
        """The layers that a stage itself changed most, as this task's inputs go through them."""
        values, lows = (
            [math.nan if one is None else one for one in self._row(name, i)]
            for name in (self.by_the_stage, f"{self.by_the_stage} low")
        )
        return [self.layers[k] for k in changed_most(values, lows)]

    def holds(self, i: int) -> list[int]:
        """The layers that are more like the control than the base's are, beyond chance."""
        lows = self._row("gain low", i)
        return [layer for layer, low in zip(self.layers, lows, strict=True) if low is not None and low > 0]

    def transitions(self, i: int) -> list[int]:
        """The layers at which the likeness to the control, less the base's, changes its level."""
        gain, low, high = (self._row(name, i) for name in ("gain", "gain low", "gain high"))
        rows = [row for row in zip(self.layers, gain, low, high, strict=True) if None not in row]
        if len(rows) < len(self.layers):
            return []
        cuts = bands(
            [row[1] or 0.0 for row in rows], [((row[3] or 0) - (row[2] or 0)) / TWO_SIDED for row in rows]
        )
        return [rows[cut][0] for cut in cuts]

    def _row(self, name: str, i: int) -> Sequence[float | None]:
        return self.more[name][i] if name in self.more else [None] * len(self.layers)


def layer_maps(found: Mapping[str, Any], *, in_sequence: bool = True) -> list[LayerMap]:
    """The maps of a probe's table, one for each task.

    Args:
        found: As under "probes", "layers" in `results.json`.
        in_sequence: Whether each stage went on from the one before.
    """
    columns: dict[str, list[tuple[int, int]]] = {}
    for column, part in enumerate(found["parts"]):
        task, _, layer = f" {part}".rpartition(BETWEEN)
        columns.setdefault(task.strip(), []).append((int(layer), column))
    maps = []
    for task, some in columns.items():
        places = [column for _, column in sorted(some)]

        def grid(key: str, places: Sequence[int] = places) -> list[list[Any]]:
            return [[row[place] for place in places] for row in found[key]]

        more = [[one or {} for one in row] for row in grid("more")]
        names = dict.fromkeys(name for row in more for one in row for name in one)
        maps.append(
            LayerMap(
                task=task,
                stages=found["stages"],
                layers=[layer for layer, _ in sorted(some)],
                base=grid("values"),
                spans=grid("intervals"),
                more={name: [[one.get(name) for one in row] for row in more] for name in names},
                in_sequence=in_sequence,
                n=max((n for row in grid("n") for n in row if n is not None), default=0),
            )
        )
    return maps


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
