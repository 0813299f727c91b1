"""Rows as the text of a CSV file."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header of all keys in the order in which they come, and a line for each row; the bytes are pandas'.

    What is missing, None or NaN is an empty cell. A column of numbers that are not all whole, or of which
    some are missing, is written as floats throughout. A text that a spreadsheet would compute begins with an
    apostrophe.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [_column([row.get(column) for row in rows]) for column in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*cells, strict=True))
    return text.getvalue()


def _column(values: Sequence[Any]) -> list[Any]:
    """The cells of one column, which are written alike."""
    known = [None if isinstance(value, float) and math.isnan(value) else _as_text(value) for value in values]
    there = [value for value in known if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
    if numbers and (len(there) < len(known) or any(isinstance(value, float) for value in there)):
        return [None if value is None else float(value) for value in known]
    return known


def _as_text(value: Any) -> Any:
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )
