"""What the probe `layers` found, as a map for each task: where it lives, and where it is overwritten."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.metrics.layer_rules import bands, changed_most, shares_of_the_change
from forgetmenot.record.results import load_results

LAYERS = "layers"
"""The probe's name."""
BETWEEN = " layer "
"""What stands between a task and the number of a layer in the name of a part."""
LEARNS = 0.9
"""The layers that `adapter.layers: {auto: RUN_DIR}` lets learn hold this share of the own change; ours."""
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


def first_layer_of_map(run_dir: Path) -> int:
    """The number, from 0, of the layer from which on nine tenths of what training changed lie.

    They are of the own change of every layer in the stages of a pilot run, the mean over its tasks, each in
    its own stage and on its own inputs.

    Args:
        run_dir: The pilot's directory: finished, with the probe `layers`, scored on `select`.

    Raises:
        UserError: If it is no such run, or nothing has changed in it.
    """
    results = load_results(run_dir)
    split = results.split
    if LAYERS not in results.probes:
        raise UserError(f"{run_dir} has no map: run it with evaluation.probes: [layers].")
    if split != "select":
        raise UserError(
            f"{run_dir}: its map was drawn on the split {split}, on which nothing is chosen; run it "
            "with evaluation.split: select."
        )
    changes = []
    for one in layer_maps(results.probes[LAYERS], in_sequence=results.in_sequence):
        own = results.own_stage(one.task) if one.task in results.tasks else None
        if own is not None and one.by_the_stage in one.more:
            changes.append([value or 0.0 for value in one.more[one.by_the_stage][own]])
    shares = shares_of_the_change(changes)
    if not sum(shares):
        raise UserError(f"{run_dir}: its map shows no layer that training changed.")
    held = 0.0
    for layer in reversed(range(len(shares))):
        held += shares[layer]
        if held >= LEARNS * sum(shares):
            return layer
    return 0
