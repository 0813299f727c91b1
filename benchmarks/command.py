"""The common part of the benchmarks: options, one row after another, the comparison of two sides."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_args

import torch

from benchmarks.counting import Work, counted
from benchmarks.table import COLUMNS, Cells, Comparison, Way, in_words, machine, render, write
from benchmarks.timing import Clock, Pairs, in_turn, product_rate, timed
from benchmarks.workload import (
    SMALL,
    Material,
    Row,
    Sizes,
    Workload,
    check_dtype,
    model_of,
    read_material,
    read_workload,
)
from forgetmenot.errors import UserError, nearest

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")
Answer = TypeVar("Answer")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Bench:
    """All that is needed to measure one row.

    Attributes:
        workload: The row's own, with its layers and its dtype.
        sizes: How many examples of each task `material` holds.
        model: The directory of the row's model.
        called: What that model is called in print.
        folder: An empty one, for what the row writes.
    """

    workload: Workload
    row: Row
    sizes: Sizes
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

    @property
    def layers(self) -> str:
        """Which layers learn, in words."""
        found = self.workload.adapter.layers
        return found if isinstance(found, str) else " ".join(f"{how} {k}" for how, k in found.items())

    @property
    def trial(self) -> "Bench":
        """The same on the few examples on which flags are tried and what the two sides find is compared."""
        sizes = self.workload.models[self.row.model].trial
        if sizes is None:
            return self
        material = read_material(self.workload, self.row.shots, sizes, self.data_dir)
        return replace(self, sizes=sizes, material=material)


class Measured(Protocol):
    """A row of a table."""

    def cells(self) -> Cells:
        """The row as text."""
        ...


def own_sizes(workload: Workload, row: Row) -> Sizes:
    """The sizes of a row by its demonstrations."""
    return workload.models[row.model].sizes[row.shots]


def run_command(
    name: str,
    description: str,
    measure: Callable[[Bench], Measured],
    *,
    shots: Sequence[int] | None = None,
    sizes: Callable[[Workload, Row], Sizes] = own_sizes,
    columns: Cells = COLUMNS,
) -> None:
    """Measure the rows that the user names, print the table, and write each into the docs if asked.

    A row that cannot be measured, or whose answers do not agree, is said in one sentence, and the others
    follow; the command then ends with status 2.

    Args:
        name: The table's name in docs/performance.md.
        description: For `--help`.
        measure: Compares the two sides in one row.
        shots: The numbers of demonstrations that this benchmark knows; None for all.
        sizes: How many examples of each task a row takes.
        columns: The table's.
    """
    workload = read_workload()
    rows = {str(row): row for row in workload.rows if shots is None or row.shots in shots}
    arguments = _parser(name, description, workload, list(rows)).parse_args()
    failed = False
    cells: list[Cells] = []
    try:
        _check(arguments, rows)
        for wanted in arguments.rows:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    bench = _bench(workload, rows[wanted], sizes, arguments, Path(folder))
                    cells.append(measure(bench).cells())
            except UserError as error:
                failed = True
                print(f"{name}: {wanted}: {error}", file=sys.stderr)
                continue
            if arguments.write:
                write(name, cells[-1], columns)
    except UserError as error:
        failed = True
        print(f"{name}: {error}", file=sys.stderr)
    finally:  # also after an interruption: what is finished
        if cells:
            print(render(cells, columns), end="")
    if failed:
        sys.exit(2)


@dataclass(frozen=True)
class _Seen(Generic[Answer]):
    """A piece of work done once: what it found and computed, and the seconds that it took."""

    answer: Answer
    work: Work
    seconds: float


def compare(
    bench: Bench,
    ours: Sequence[Callable[[], Ours]],
    theirs: Callable[[], Theirs],
    agree: Callable[[list[Ours], Theirs], str],
    *,
    models: tuple[Any, Any],
    flags: Mapping[str, Any],
) -> Comparison:
    """Count both sides' work, compare their answers, and time them in turn.

    With no repeats the counted work itself is what was timed.

    Args:
        bench: The row.
        ours: Our side's work in each of its ways, as often as it is called; it gives what it found.
        theirs: The peer's, with its fastest flags.
        agree: Says how nearly what was found agrees, and raises a `UserError` where it does not.
        models: Of our side and of the peer's: their shapes tell what is counted.
        flags: The peer's fastest.
    """
    rate = product_rate(bench.device, DTYPES[bench.row.dtype], bench.clock)
    seen = [_once(work, models[0], bench.clock) for work in ours]
    their = _once(theirs, models[1], bench.clock)
    answers = agree([one.answer for one in seen], their.answer)
    repeats = bench.workload.repeats
    if repeats:
        works = [*ours, theirs]
        taken = in_turn(works, repeats=repeats, clock=bench.clock, title=f"{bench.row}: timing")
    else:
        taken = [*((one.seconds,) for one in seen), (their.seconds,)]
        answers += "; timed while counted"
    *each, last = taken
    return Comparison(
        row=bench.row,
        model=bench.called,
        layers=bench.layers,
        machine=bench.machine,
        ways=tuple(Way(Pairs(own, last), one.work) for own, one in zip(each, seen, strict=True)),
        theirs=their.work,
        rate=rate,
        flags=in_words(flags),
        answers=answers,
    )


def _once(work: Callable[[], Answer], model: Any, clock: Clock) -> _Seen[Answer]:
    found: list[Answer] = []
    with counted(model) as done:
        seconds = timed(lambda: found.append(work()), clock)
    return _Seen(found[0], done, seconds)


def _check(arguments: argparse.Namespace, rows: Mapping[str, Row]) -> None:
    """Refuse options that fit no row or not this machine, before anything is measured.

    Raises:
        UserError: One does.
    """
    if (arguments.device == "cuda") != torch.cuda.is_available():
        raise UserError(
            f"--device {arguments.device}: this is not what the machine runs on; to leave a GPU aside, "
            "set CUDA_VISIBLE_DEVICES to nothing."
        )
    if arguments.repeats < 0:
        raise UserError(f"--repeats: {arguments.repeats} is no number of repeats; give 0 or more.")
    for wanted in arguments.rows:
        if wanted not in rows:
            raise UserError(f"--rows: there is no row {wanted!r}. {nearest(wanted, rows)}")
        check_dtype(rows[wanted].dtype, torch.device(arguments.device))


def _parser(name: str, description: str, workload: Workload, rows: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    small = [row for row in rows if row.startswith(f"{SMALL}/") and row.count("/") == 1]
    parser.add_argument("--rows", nargs="+", default=small, help=f"of: {', '.join(rows)} (default: {small})")
    parser.add_argument(
        "--model", default="quickstart", help="the small model: a directory, or a bundled one"
    )
    parser.add_argument("--models", type=Path, help="the folder that holds the trained models of other rows")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("FORGETMENOT_DATA"),
        help="the folder that holds glue/; FORGETMENOT_DATA where not given, and else the hub",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--repeats",
        type=int,
        default=workload.repeats,
        help="how often each side is timed; with 0 the pass that counts the arithmetic is timed",
    )
    parser.add_argument("--clock", choices=get_args(Clock), default="wall", help="cpu: where others disturb")
    parser.add_argument("--write", action="store_true", help="put each row into docs/performance.md")
    return parser


def _bench(
    workload: Workload,
    row: Row,
    sizes: Callable[[Workload, Row], Sizes],
    arguments: argparse.Namespace,
    folder: Path,
) -> Bench:
    """Read the row's data and find its model."""
    data_dir = Path(arguments.data_dir) if arguments.data_dir is not None else None
    model = model_of(workload, row.model, arguments.model, arguments.models)
    many = sizes(workload, row)
    return Bench(
        workload=workload.of(row).model_copy(update={"repeats": arguments.repeats}),
        row=row,
        sizes=many,
        model=model,
        called=Path(arguments.model).name if row.model == SMALL else model.name,
        material=read_material(workload, row.shots, many, data_dir),
        data_dir=data_dir,
        device=torch.device(arguments.device),
        clock=arguments.clock,
        folder=folder,
    )
