"""The common part of the benchmarks: options, one row after another, the comparison of two sides."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import torch

from benchmarks.counting import counted
from benchmarks.table import COLUMNS, Cells, Comparison, in_words, machine, render, write
from benchmarks.timing import Clock, in_turn
from benchmarks.workload import SMALL, Material, Row, Workload, read_material, read_workload, write_model
from forgetmenot.errors import UserError, nearest

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")


@dataclass(frozen=True)
class Bench:
    """All that is needed to measure one row.

    Attributes:
        model: The directory of the row's model.
        called: What that model is called in print.
        folder: An empty one, for what the row writes.
    """

    workload: Workload
    row: Row
    model: Path
    called: str
    material: list[Material]
    data_dir: Path | None
    device: torch.device
    clock: Clock
    folder: Path

    @property
    def machine(self) -> str:
        """Where the row is measured, and by which clock if it is not the wall's."""
        return machine(self.device) + (", CPU time" if self.clock == "cpu" else "")


class Measured(Protocol):
    """A row of a table."""

    def cells(self) -> Cells:
        """The row as text."""
        ...


def run_command(
    name: str,
    description: str,
    measure: Callable[[Bench], Measured],
    shots: Sequence[int] | None = None,
    columns: Cells = COLUMNS,
) -> None:
    """Measure the rows that the user names, print the table, and write it into the docs if asked.

    Ends with status 2 after a mistake, which is said in one sentence, and so if the answers do not agree.

    Args:
        name: The table's name in docs/performance.md.
        description: For `--help`.
        measure: Compares the two sides in one row.
        shots: The numbers of demonstrations that this benchmark knows; None for all.
        columns: The table's.
    """
    workload = read_workload()
    rows = {str(row): row for row in workload.rows if shots is None or row.shots in shots}
    arguments = _parser(name, description, workload, list(rows)).parse_args()
    try:
        if (arguments.device == "cuda") != torch.cuda.is_available():
            raise UserError(
                f"--device {arguments.device}: this is not what the machine runs on; to leave a GPU aside, "
                "set CUDA_VISIBLE_DEVICES to nothing."
            )
        if arguments.pairs < 1:
            raise UserError(f"--pairs: {arguments.pairs} is no number of pairs; give 1 or more.")
        for wanted in arguments.rows:
            if wanted not in rows:
                raise UserError(f"--rows: there is no row {wanted!r}. {nearest(wanted, rows)}")
        cells: list[Cells] = []
        for wanted in arguments.rows:
            with tempfile.TemporaryDirectory() as folder:
                cells.append(measure(_bench(workload, rows[wanted], arguments, Path(folder))).cells())
            if arguments.write:
                write(name, cells[-1], columns)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    print(render(cells, columns), end="")


def compare(
    bench: Bench,
    ours: Callable[[], Ours],
    theirs: Callable[[], Theirs],
    agree: Callable[[Ours, Theirs], str],
    *,
    models: tuple[Any, Any],
    flags: Mapping[str, Any],
) -> Comparison:
    """Count both sides' work, compare their answers, and time them in turn.

    Args:
        bench: The row.
        ours: Our side's work, as often as it is called; it gives what it found.
        theirs: The peer's, with its fastest flags.
        agree: Says how nearly what was found agrees, and raises a `UserError` where it does not.
        models: Of our side and of the peer's: their shapes tell what is counted.
        flags: The peer's fastest.
    """
    with counted(models[0]) as our_work:
        our_answers = ours()
    with counted(models[1]) as their_work:
        their_answers = theirs()
    answers = agree(our_answers, their_answers)
    title = f"{bench.row}: pairs"
    return Comparison(
        row=bench.row,
        model=bench.called,
        machine=bench.machine,
        pairs=in_turn(ours, theirs, pairs=bench.workload.pairs, clock=bench.clock, title=title),
        ours=our_work,
        theirs=their_work,
        flags=in_words(flags),
        answers=answers,
    )


def _parser(name: str, description: str, workload: Workload, rows: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    small = [row for row in rows if row.startswith(f"{SMALL}/")]
    parser.add_argument("--rows", nargs="+", default=small, help=f"of: {', '.join(rows)} (default: {small})")
    parser.add_argument(
        "--model", default="quickstart", help="the small model: a directory, or a bundled one"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("FORGETMENOT_DATA"),
        help="the folder that holds glue/; FORGETMENOT_DATA where not given, and else the hub",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=workload.pairs, help="how often each side is timed")
    parser.add_argument("--clock", choices=get_args(Clock), default="wall", help="cpu: where others disturb")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/performance.md")
    return parser


def _bench(workload: Workload, row: Row, arguments: argparse.Namespace, folder: Path) -> Bench:
    """Read the row's data and make its model ready."""
    data_dir = Path(arguments.data_dir) if arguments.data_dir is not None else None
    model = write_model(workload, row.model, arguments.model, folder / "model")
    return Bench(
        workload=workload.model_copy(update={"pairs": arguments.pairs}),
        row=row,
        model=model,
        called=Path(arguments.model).name if row.model == SMALL else row.model,
        material=read_material(workload, row, data_dir),
        data_dir=data_dir,
        device=torch.device(arguments.device),
        clock=arguments.clock,
        folder=folder,
    )
