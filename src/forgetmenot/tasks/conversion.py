"""A row of a user's own task as an example: its fields, its label and its target, by the kind of the task."""

import re
from collections.abc import Mapping
from typing import Any

from forgetmenot.tasks.chats import conversation, turns_in
from forgetmenot.tasks.rows import BadRowError, Converted, cell, label_in, plain
from forgetmenot.tasks.tables import Row
from forgetmenot.tasks.task import PAIR, Kind


def identifier(column: str) -> str:
    """The name of a column in a template, where a name has letters, digits and _ alone.

    >>> identifier("Ticket text")
    'Ticket_text'
    """
    name = re.sub(r"\W", "_", column)
    return f"_{name}" if name[:1].isdigit() else name


class Conversion:
    """Converts the rows of one task, and counts what it leaves out."""

    def __init__(
        self,
        kind: Kind,
        column: str,
        labels: tuple[str, ...],
        rejected: str | None,
        cluster: str | None,
        *,
        written: bool,
    ) -> None:
        """Convert by the keys of a task file.

        Args:
            kind: The task's kind.
            column: The column that holds the answer.
            labels: Those of a choice.
            rejected: The column of the other answer of a preference.
            cluster: The column that examples share which are not independent.
            written: Whether written answers are held against what the row says.
        """
        self._column, self._labels, self._rejected = column, labels, rejected
        self._cluster, self._written = cluster, written
        self._convert = {
            "choice": self._choice,
            "answer": self._answer,
            "messages": self._messages,
            "text": self._text,
            "preference": self._preference,
        }[kind]
        self._unanswered = 0

    def __call__(self, row: Row) -> Converted:
        """Convert a row.

        Raises:
            BadRowError: Something in it is missing or wrong.
        """
        return self._convert(row)

    def notes(self) -> list[str]:
        """Sentences on what was left out of the rows so far."""
        if not self._unanswered:
            return []
        return [
            f"Chats that go on behind the assistant's last turn: {self._unanswered:,}; what stands there is "
            "left out."
        ]

    def _choice(self, row: Row) -> Converted:
        label = label_in(row, self._column, self._labels)
        return _fields(row, self._column), label, None

    def _answer(self, row: Row) -> Converted:
        target = plain(cell(row, self._column))
        if not target.strip():
            raise BadRowError(f"the target in {self._column!r} is empty.")
        return _fields(row, self._column), None, target

    def _messages(self, row: Row) -> Converted:
        found = conversation(row, self._column)
        self._unanswered += len(turns_in(row, self._column)) > len(found["messages"])
        said = found["messages"][-1]["content"]
        if self._written and not said.strip():
            raise BadRowError("the last turn says nothing that a written answer could be held against.")
        return {**found, **self._shared(row)}, None, said

    def _text(self, row: Row) -> Converted:
        value = cell(row, self._column)
        if not isinstance(value, str) or not value.strip():
            raise BadRowError(f"{self._column!r} is {value!r}, not a text with something in it.")
        return {"text": value, **self._shared(row)}, None, None

    def _preference(self, row: Row) -> Converted:
        columns = (self._column, str(self._rejected))
        pair = {name: _answer_in(row, place) for name, place in zip(PAIR, columns, strict=True)}
        if pair["chosen"] == pair["rejected"]:
            raise BadRowError("the chosen and the rejected answer are the same.")
        return {**_fields(row, *columns), **pair}, PAIR[0], None

    def _shared(self, row: Row) -> dict[str, Any]:
        return {} if self._cluster is None else {identifier(self._cluster): row.get(self._cluster)}


def _fields(row: Row, *without: str) -> Mapping[str, Any]:
    """The columns that a template may name, by their names there."""
    fields: dict[str, Any] = {}
    for column, value in row.items():
        if column in without:
            continue
        name = identifier(column)
        if name in fields:
            raise BadRowError(f"two columns are {name!r} in a template; rename {column!r}.")
        fields[name] = value
    return fields


def _answer_in(row: Row, column: str) -> str:
    value = cell(row, column)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(f"{column!r} is {value!r}, not an answer as text.")
    return value
