"""The table that a benchmark prints, and its place in a document."""

import platform
from collections.abc import Callable, Mapping, Sequence
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
ROW: Cells = ("machine", "model", "shots", "layers", "dtype")
"""The first cells, which say which row it is."""
COLUMNS: Cells = (
    *ROW,
    "ours (s)",
    "peer (s)",
    "time ×",
    "spread",
    "positions ×",
    "head rows ×",
    "products ×",
    "MFU: ours, peer",
    "machine (GFLOP/s)",
    "the peer's flags",
    "answers",
)


@dataclass(frozen=True)
class Way:
    """What was measured of one way in which our side works, such as with an empty cache.

    Attributes:
        pairs: Its seconds beside the peer's.
        work: What it computes.
    """

    pairs: Pairs
    work: Work


@dataclass(frozen=True)
class Comparison:
    """A row of a table.

    Attributes:
        model: What the row's model is called in print.
        layers: Which layers learn, in words.
        ways: Ours; where the lower layers' states are kept the first time and later ones.
        theirs: What the peer computes.
        rate: Of the machine's own matrix product, operations a second.
        flags: The peer's choice, the fastest of the workload's.
        answers: How nearly the two sides agreed.
    """

    row: Row
    model: str
    layers: str
    machine: str
    ways: tuple[Way, ...]
    theirs: Work
    rate: float
    flags: str
    answers: str

    def cells(self) -> Cells:
        """The row as text, in the order of COLUMNS; first and later times with / between them."""
        theirs = median(self.ways[0].pairs.theirs)
        shares = [self._share(way.work, median(way.pairs.ours)) for way in self.ways]
        return (
            *row_cells(self.machine, self.model, self.layers, self.row),
            self._each(lambda way: f"{median(way.pairs.ours):.2f}"),
            f"{theirs:.2f}",
            self._each(lambda way: f"**{way.pairs.ratio:.1f}**"),
            self._each(lambda way: f"{way.pairs.ratios[0]:.1f}–{way.pairs.ratios[-1]:.1f}"),
            self._each(lambda way: f"{self.theirs.positions / way.work.positions:.1f}"),
            self._each(lambda way: f"{self.theirs.head_rows / way.work.head_rows:.1f}"),
            self._each(lambda way: f"{self.theirs.flops / way.work.flops:.1f}"),
            f"{' / '.join(shares)}, {self._share(self.theirs, theirs)}",
            f"{self.rate / 1e9:.0f}",
            self.flags,
            self.answers,
        )

    def _each(self, said: Callable[[Way], str]) -> str:
        return " / ".join(map(said, self.ways))

    def _share(self, work: Work, seconds: float) -> str:
        """How much of the machine's rate a piece of work reaches in its products."""
        return f"{work.flops / seconds / self.rate:.0%}"


def row_cells(machine: str, model: str, layers: str, row: Row) -> Cells:
    """The cells of ROW."""
    return (machine, model, str(row.shots), layers, row.dtype)


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


def write(
    name: str, row: Cells, columns: Cells = COLUMNS, document: Path = DOCUMENT, key: int = len(ROW)
) -> None:
    """Put a row into the document's table between `<!-- begin: name -->` and `<!-- end: name -->`.

    It takes the place of the row with the same first `key` cells, and else comes last.

    Raises:
        UserError: If the document has no such markers.
    """
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    table, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{document} has no place for the table: put {begin.strip()} and {end} into it.")
    rows = {one[:key]: one for one in map(_cells, table.strip().splitlines()[2:])}
    rows[row[:key]] = row
    document.write_text(before + begin + render(list(rows.values()), columns) + end + after, encoding="utf-8")


def _cells(line: str) -> Cells:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
