"""Files of sentences, and of their vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.record.files import write_json, written_whole
from forgetmenot.tasks.files import read_table
from forgetmenot.tasks.tables import numbered_lines

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
    return [(line.rstrip("\r\n"), f"{path}, line {number}") for number, line in numbered_lines(path)]


def _cells(path: Path, column: str | None) -> list[tuple[str, str]]:
    table = read_table(path)
    if column is None:
        raise UserError(f"--column: name the column of sentences in {path}: {', '.join(table.columns)}.")
    if column not in table.columns:
        raise UserError(f"--column: {path} has no column {column!r}. {nearest(column, table.columns)}")
    found = []
    for number, row in table.rows:
        text = row.get(column)
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"{table.at(number)}: the value of {column!r} is no text (given: {text!r}); name the column "
                "of the sentences."
            )
        found.append((text or "", table.at(number)))
    return found


def refuse_to_replace(output: Path, about: Path) -> None:
    """See that nothing is written over but earlier vectors.

    Raises:
        UserError: Something else is there, or the file's kind is unknown.
    """
    if output.suffix not in SUFFIXES:
        raise UserError(f"{output}: vectors are written as {', '.join(SUFFIXES)}.")
    for other in (output.with_suffix(suffix) for suffix in SUFFIXES if suffix != output.suffix):
        if other.exists():
            raise UserError(f"{other} is there, and {about} is about it; give these vectors another name.")
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


def write_vectors(path: Path, texts: list[str], vectors: Tensor, about: Mapping[str, Any]) -> None:
    """Write vectors [n, width], and beside them a JSON of what they were made with.

    A tensor `embeddings`, an array, or columns `sentence` and `embedding`. The JSON comes first, since it is
    what tells vectors of ours from a file of others: a command that is killed between the two can be
    given again.
    """
    path.unlink(missing_ok=True)  # earlier vectors, which the new JSON does not describe
    write_json(path.with_suffix(".json"), about)
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
