"""Rows with their numbers, from each kind of file, so that an error can name the row."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from forgetmenot.errors import UserError, nearest
from forgetmenot.hub import NotThereError, answers

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one split.

    Attributes:
        source: The file, or the hub id with its revision, as a user would name it.
        columns: The column names; those of the first row where rows are free (JSON).
        rows: Pairs of a 1-based number and the row; to be walked once.
        unit: What the numbers count: lines of a text file, else rows.
    """

    source: str
    columns: tuple[str, ...]
    rows: Iterable[tuple[int, Row]]
    unit: str = "line"

    def at(self, number: int) -> str:
        """Name a row in an error."""
        return f"{self.source}, {self.unit} {number}"


class _Typed(float):
    """A number that is written as its user typed it: 1.50 stays 1.50 in a prompt."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number._text = text
        return number

    _text: str

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def read_tsv(path: Path, header: Sequence[str] | None = None, uneven: list[int] | None = None) -> Table:
    r"""Read tab-separated lines in which quotes are text, never quoting.

    Args:
        path: A UTF-8 file, with or without BOM; lines end with \n or \r\n, and nothing else ends a line.
        header: Column names for a file that may come without any; a first line that has one of them wins.
        uneven: Takes the numbers of lines whose cells do not match the header, which are then left out;
            without it such a line is an error.
    """
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        return Table(str(path), tuple(header or ()), [])
    cells = first[1].rstrip("\r\n").split("\t")
    if header is None or set(header) & set(cells):
        columns, rest = _header(path, cells), lines
    else:
        columns, rest = tuple(header), numbered_lines(path)

    def rows() -> Iterator[tuple[int, Row]]:
        width = len(columns)
        for number, line in rest:
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) == width:
                yield number, dict(zip(columns, cells, strict=True))
            elif cells == [""]:
                continue
            elif uneven is None:
                raise UserError(_uneven(path, number, len(cells), width))
            else:
                uneven.append(number)

    return Table(str(path), columns, rows())


def read_csv(path: Path) -> Table:
    """Read comma-separated rows (RFC 4180: quoted cells may hold commas and line ends) under a header."""
    csv.field_size_limit(2**31 - 1)  # the default refuses cells, such as chats, beyond 128 KiB
    reader = csv.reader((line for _, line in numbered_lines(path)), strict=True)
    rows: list[tuple[int, Row]] = []
    columns: tuple[str, ...] = ()
    line = 1
    try:
        columns = _header(path, next(reader, []))
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise UserError(_uneven(path, line, len(cells), len(columns)))
            if cells:
                rows.append((line, dict(zip(columns, cells, strict=True))))
            line = reader.line_num + 1
    except csv.Error as problem:
        raise UserError(f"{path}, line {line}: this is not CSV ({problem}).") from None
    return Table(str(path), columns, rows)


_UNREADABLE = (ValueError, RecursionError)


def _loaded(text: str) -> Any:
    """The content of JSON, with its numbers as they were typed.

    Raises:
        ValueError: It is none, has a number of thousands of digits, or half a character, as where a text was
            cut within an emoji.
        RecursionError: It is nested too deep.
    """
    found = json.loads(text, parse_float=_Typed)
    if "\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _why(problem: Exception) -> str:
    if isinstance(problem, json.JSONDecodeError):
        return problem.msg
    if isinstance(problem, UnicodeEncodeError):
        return "half a character, a surrogate without its other half: a text was cut within one"
    return "nested too deep" if isinstance(problem, RecursionError) else "a number has too many digits"


def _line_of(problem: Exception) -> str:
    return f", line {problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""


def read_jsonl(path: Path) -> Table:
    """Read one JSON object per line; empty lines are passed over."""
    rows = []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            row = _loaded(line)
        except _UNREADABLE as problem:
            raise UserError(f"{path}, line {number}: this is not JSON ({_why(problem)}).") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a row must be a JSON object with named fields.")
        rows.append((number, row))
    return Table(str(path), tuple(rows[0][1]) if rows else (), rows)


def read_json(path: Path) -> Table:
    """Read a JSON list of objects, a task of Super-NaturalInstructions, or one object per line.

    Many tools write JSON lines into .json as well.
    """
    text = "".join(line for _, line in numbered_lines(path))
    if not text.lstrip().startswith("["):
        return _super_ni(path, text) if '"Instances"' in text else read_jsonl(path)
    try:
        rows = _loaded(text)
    except _UNREADABLE as problem:
        raise UserError(f"{path}{_line_of(problem)}: this is not JSON ({_why(problem)}).") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: a row must be a JSON object with named fields.")
    return Table(str(path), tuple(rows[0]) if rows else (), list(enumerate(rows, 1)), "row")


def _super_ni(path: Path, text: str) -> Table:
    """Read a task file of Super-NaturalInstructions (Wang et al. 2022, arXiv 2204.07705).

    Each instance becomes a row: `definition`, `examples` (the positive ones: a list of `input`, `output` and
    `explanation`), `input`, `output` (the first that is given) and `outputs` (all of them).
    """
    try:
        task = _loaded(text)
    except _UNREADABLE as problem:
        raise UserError(f"{path}{_line_of(problem)}: this is not JSON ({_why(problem)}).") from None
    if not isinstance(task.get("Instances"), list) or "Definition" not in task:
        raise UserError(f"{path}: a task of Super-NaturalInstructions has a Definition and Instances.")
    definition = task["Definition"]
    about = {
        "definition": definition if isinstance(definition, str) else "\n".join(definition),
        "examples": task.get("Positive Examples", []),
    }
    rows = []
    for number, instance in enumerate(task["Instances"], 1):
        outputs = instance.get("output") if isinstance(instance, dict) else None
        outputs = [outputs] if isinstance(outputs, str) else outputs
        if not outputs or not isinstance(instance.get("input"), str):
            raise UserError(f"{path}, instance {number}: it needs an input and an output.")
        named = {"id": instance["id"]} if "id" in instance else {}
        rows.append(
            (number, {**named, **about, "input": instance["input"], "output": outputs[0], "outputs": outputs})
        )
    return Table(str(path), tuple(rows[0][1]) if rows else (), rows, "instance")


def read_parquet(paths: Sequence[Path]) -> Table:
    """Read the parquet files of one split, in the order given; rows are numbered through all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} parquet files)"
    try:
        return _arrow_rows(source, pa.concat_tables([pq.read_table(path.absolute()) for path in paths]))
    except (OSError, pa.ArrowException) as problem:
        raise UserError(f"{source} could not be read as parquet: {_first_line(problem)}.") from None


def read_saved(folder: Path, split: str) -> Table:
    """Read one split of a folder that `datasets.DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        splits = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as problem:
        raise UserError(f"{folder} could not be read as a saved data set: {_first_line(problem)}.") from None
    return _split(splits, split, str(folder))


def read_hub(name: str, config: str | None, revision: str | None, split: str) -> Table:
    """Read one split of a data set on the Hugging Face hub, or of a folder in the hub's layout.

    Raises:
        UserError: It cannot be reached, or has no such config or split.
    """
    import datasets

    source = f"{name}{f' ({config})' if config else ''}"
    missing = None
    try:
        asks = Path(name).is_dir() or answers(name, "README.md", revision, "dataset")
    except NotThereError as why:
        asks, missing = False, str(why)
    try:
        with nullcontext() if asks else from_cache_alone():
            splits = datasets.load_dataset(name, config, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as problem:
        raise UserError(  # RuntimeError is how a data set that is a script is refused
            f"The data set {source} could not be loaded from the hub: {missing or _first_line(problem)}. "
            "Without a network, use files on disk (data_dir, or paths in a task file)."
        ) from None
    return _split(splits, split, source)


@contextmanager
def from_cache_alone() -> Iterator[None]:
    """Let `datasets` take what it has, and not ask for the rest for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _split(splits: Any, split: str, source: str) -> Table:
    if split not in splits:
        raise UserError(f"{source} has no split {split!r}. {nearest(split, splits)}")
    return _arrow_rows(f"{source}, split {split}", splits[split].with_format("arrow")[:])


def _arrow_rows(source: str, table: Any) -> Table:
    """Turn columns into rows; a column that carries class names gives names, and hidden labels stay −1."""
    import datasets

    features = datasets.Features.from_arrow_schema(table.schema)
    columns = []
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if isinstance(features[name], datasets.ClassLabel):
            classes = dict(enumerate(features[name].names))
            values = [classes.get(value, value) for value in values]
        columns.append(values)
    names = tuple(table.column_names)
    rows = (
        (number, dict(zip(names, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True), 1)
    )
    return Table(source, names, rows, "row")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a UTF-8 file with their numbers, each with its end; \n alone ends a line.

    They are decoded one by one, so that a byte that is not UTF-8 has a line to name; a .gz file is unpacked.

    Raises:
        UserError: A line is not UTF-8, or a .gz file is damaged.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines, (0, b""))
            except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
                raise UserError(f"{path} could not be unpacked: {_first_line(problem)}.") from None
            if not number:
                return
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(
                    f"{path}, line {number}: this is not UTF-8; save the file as UTF-8."
                ) from None


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}, line 1: the column {name!r} occurs twice in the header.")
    return names


def _uneven(path: Path, number: int, cells: int, width: int) -> str:
    return f"{path}, line {number}: {cells} cells where the header has {width}; mend or remove the line."


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
