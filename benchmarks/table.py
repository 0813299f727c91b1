"""The table that a benchmark prints, and its place in docs/performance.md."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.counting import Work
from benchmarks.timing import Pairs
from benchmarks.workload import Row
from forgetmenot.errors import UserError

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
Cells = tuple[str, ...]
COLUMNS: Cells = (
    "machine",
    "model",
    "shots",
    "ours (s)",
    "peer (s)",
    "time ×",
    "spread",
    "positions ×",
    "head rows ×",
    "products ×",
    "the peer's flags",
    "answers",
)
KEY = 3
"""So many first cells say which row it is."""


@dataclass(frozen=True)
class Comparison:
    """A row of a table.

    Attributes:
        model: What the row's model is called in print.
        flags: The peer's choice, the fastest of the workload's.
        answers: How nearly the two sides agreed.
    """

    row: Row
    model: str
    machine: str
    pairs: Pairs
    ours: Work
    theirs: Work
    flags: str
    answers: str

    def cells(self) -> Cells:
        """The row as text, in the order of COLUMNS."""
        pairs, ratios = self.pairs, self.pairs.ratios
        return (
            self.machine,
            self.model,
            str(self.row.shots),
            f"{median(pairs.ours):.2f}",
            f"{median(pairs.theirs):.2f}",
            f"**{pairs.ratio:.1f}**",
            f"{ratios[0]:.1f}–{ratios[-1]:.1f}",
            f"{self.theirs.positions / self.ours.positions:.1f}",
            f"{self.theirs.head_rows / self.ours.head_rows:.1f}",
            f"{self.theirs.flops / self.ours.flops:.1f}",
            self.flags,
            self.answers,
        )


def in_words(flags: Mapping[str, Any]) -> str:
    """A peer's flags as one writes them in Python."""
    return ", ".join(f"{name}={value}" for name, value in flags.items())


def machine(device: torch.device) -> str:
    """The machine in words: the GPU's name, or the processor's with its vector units and our threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def render(rows: Sequence[Cells], columns: Cells = COLUMNS) -> str:
    """Rows as a markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(name: str, row: Cells, columns: Cells = COLUMNS, document: Path = DOCUMENT) -> None:
    """Put a row into the document's table between `<!-- begin: name -->` and `<!-- end: name -->`.

    It takes the place of the row of the same machine, model and shots, and else comes last.

    Raises:
        UserError: If the document has no such markers.
    """
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    table, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{document} has no place for the table: put {begin.strip()} and {end} into it.")
    rows = {one[:KEY]: one for one in map(_cells, table.strip().splitlines()[2:])}
    rows[row[:KEY]] = row
    document.write_text(before + begin + render(list(rows.values()), columns) + end + after, encoding="utf-8")


def _cells(line: str) -> Cells:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
