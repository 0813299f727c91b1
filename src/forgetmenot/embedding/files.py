"""Files of sentences, and of their vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from forgetmenot.errors import UserError, nearest
from forgetmenot.record.files import written_whole
from forgetmenot.tasks.files import read_table

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".npy", ".parquet")


def read_sentences(path: Path, column: str | None) -> list[str]:
    """Read the lines of a .txt file, or a column of a table.

    Raises:
        UserError: The file or the column is not there, or a line has no sentence.
    """
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}.")
    rows = _lines(path, column) if path.suffix == ".txt" else _cells(path, column)
    for text, place in rows:
        if not text.strip():
            raise UserError(f"{place}: there is no sentence; remove the line.")
    if not rows:
        raise UserError(f"{path} holds no sentence.")
    return [text for text, _ in rows]


def _lines(path: Path, column: str | None) -> list[tuple[str, str]]:
    if column is not None:
        raise UserError(f"--column: {path} is a plain text and has none; leave it out.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8.") from None
    lines = lines[:-1] if lines[-1] == "" else lines
    return [(line.rstrip("\r"), f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _cells(path: Path, column: str | None) -> list[tuple[str, str]]:
    table = read_table(path)
    if column is None:
        raise UserError(f"--column: name the column of sentences in {path}: {', '.join(table.columns)}.")
    if column not in table.columns:
        raise UserError(f"--column: {path} has no column {column!r}. {nearest(column, table.columns)}")
    found = []
    for number, row in table.rows:
        text = row.get(column)
        found.append((text if isinstance(text, str) else "", table.at(number)))
    return found


def refuse_to_replace(output: Path, about: Path) -> None:
    """See that nothing is written over but earlier vectors.

    Raises:
        UserError: Something else is there, or the file's kind is unknown.
    """
    if output.suffix not in SUFFIXES:
        raise UserError(f"{output}: vectors are written as {', '.join(SUFFIXES)}.")
    if not output.exists() and not about.exists():
        return
    try:
        content = json.loads(about.read_text(encoding="utf-8"))
        ours = {"settings", "text", "sentences", "width"} <= content.keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        there = output if output.exists() else about
        raise UserError(f"{there} is there, and `fmn embed` did not write it; give another name.")


def write_vectors(path: Path, texts: list[str], vectors: Tensor) -> None:
    """Write vectors [n, width]: the tensor `embeddings`, an array, or columns `sentence` and `embedding`."""
    with written_whole(path) as aside:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file({"embeddings": vectors.contiguous()}, aside)
        elif path.suffix == ".npy":
            import numpy as np

            with aside.open("wb") as file:
                np.save(file, vectors.numpy())
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().ravel()), vectors.shape[1])
            pq.write_table(pa.table({"sentence": texts, "embedding": rows}), aside)
