"""Rows turned into examples; what is wrong with a row is reported with its file and number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetmenot.errors import UserError, did_you_mean
from forgetmenot.tasks.tables import Row, Table
from forgetmenot.tasks.task import Example

Converted = tuple[Mapping[str, Any], str | None, str | float | None]


class BadRowError(Exception):
    """What is wrong with a row; `examples` adds where the row stands."""


def examples(table: Table, split: str, convert: Callable[[Row], Converted]) -> list[Example]:
    """Convert every row to (fields, label, target) and name it "<split>-<index>", counted from 0.

    Raises:
        UserError: The table has no rows, or `convert` raised BadRowError; names the file and the row.
    """
    found: list[Example] = []
    for number, row in table.rows:
        try:
            found.append(Example(f"{split}-{len(found)}", *convert(row), place=table.at(number)))
        except BadRowError as problem:
            raise UserError(f"{table.at(number)}: {problem}") from None
    if not found:
        raise UserError(f"{table.source} has no rows, and a split may not be empty.")
    return found


def cell(row: Row, column: str) -> Any:
    """Read a cell that must be there."""
    value = row.get(column)
    if value is None:
        there = ", ".join(name for name in row if row[name] is not None)
        hint = "" if column in row else did_you_mean(column, row)
        raise BadRowError(f"{column!r} is missing or null; the row has {there or 'nothing'}. {hint}".rstrip())
    return value


def label_in(row: Row, column: str, labels: Sequence[str]) -> str:
    """Read a label that must be one of `labels`."""
    label = plain(cell(row, column))
    if label in labels:
        return label
    if label == "-1":
        raise BadRowError(f"{column} is -1: the labels of this split are hidden; score on a labelled one.")
    raise BadRowError(
        f"the label {label!r} in {column!r} is none of {', '.join(labels)}. {did_you_mean(label, labels)}"
        "Mend such rows, leave them out of the file, or, in a task file, add the label to `choices`."
    )


def plain(value: Any) -> str:
    """Write a scalar as the text that a user would type for it: true, 3, billing."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # integers beside nulls arrive as floats
    if isinstance(value, str | int | float):
        return str(value)
    raise BadRowError(f"{value!r} is neither text nor a number.")
