"""What rows are a task of: a guess from their columns, for a person to read and correct."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks.documents import DOCUMENT, TEXT
from forgetmenot.tasks.rows import BadRowError, plain
from forgetmenot.tasks.splits import names_rows
from forgetmenot.tasks.tables import Row

CHATS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
LABELS = ("label", "labels", "class", "category", "intent", "sentiment", "topic", "team", "tag", "type", "y")
TARGETS = ("output", "completion", "response", "answer", "target", "summary", "solution", "translation")
TEXTS = ("text", "content", "body", "document")
"""Names that people give to the column of each kind, the likeliest first."""

MOST_LABELS, MOST_NAMED = 50, 1000
"""The most labels of a column that its values alone, and that its name, tells to be one of labels; ours."""
LEAST_OF_EACH = 3
"""Of so few values, each in so many rows on average, a column is taken for one of labels; ours."""

LONGEST_LABEL = 60
MOST_INPUTS = 6


@dataclass(frozen=True)
class Guess:
    """What the rows are taken for.

    Attributes:
        key: The key of the task file that says so: label, target, messages, text or chosen.
        column: The column of the answer.
        why: What that was seen by.
        inputs: The columns that a prompt shows.
        left_out: Columns that it does not.
        labels: How many rows each label has.
        short: Whether answers have five words at most, mostly.
        rejected: The column of the other answer of a preference.
        cluster: The column of what rows share that are not independent.
        gaps: The columns of `inputs` that some rows have no value in.
    """

    key: str
    column: str
    why: str
    inputs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    short: bool = False
    rejected: str | None = None
    cluster: str | None = None
    gaps: frozenset[str] = frozenset()


def guess(rows: Sequence[Row], answer: str | None = None) -> Guess:
    """Take rows for a task.

    Args:
        rows: All of them, one at least.
        answer: The column that holds the answer, where that is known.

    Raises:
        UserError: There is no such column, or no column can be told to be the answer.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if answer is not None and answer not in columns:
        raise UserError(f"--answer: the rows have no column {answer!r}. {nearest(answer, columns)}")
    if columns == [TEXT, DOCUMENT]:
        several = len({row[DOCUMENT] for row in rows}) > 1
        return Guess("text", TEXT, "plain texts", cluster=DOCUMENT if several else None)
    if {"chosen", "rejected"} <= set(columns) and answer in (None, "chosen"):
        inputs, left_out = _inputs(rows, columns, "chosen", "rejected")
        why = "there are columns 'chosen' and 'rejected'"
        return Guess("chosen", "chosen", why, inputs, left_out, rejected="rejected", gaps=_gaps(rows, inputs))
    if chat := _named([answer] if answer else columns, CHATS, lambda name: _are_turns(rows, name)):
        return Guess("messages", chat, f"{chat!r} holds lists of turns")
    column, why = (answer, "you named it") if answer else _answer(rows, columns)
    if (column in TEXTS or len(columns) == 1) and not answer:
        return Guess("text", column, why, left_out=tuple(name for name in columns if name != column))
    inputs, left_out = _inputs(rows, columns, column)
    gaps = _gaps(rows, inputs)
    if labels := _labels(rows, column, MOST_NAMED):
        return Guess("label", column, why, inputs, left_out, labels=labels, gaps=gaps)
    answers = [str(row[column]) for row in rows if row.get(column) is not None]
    short = 2 * sum(len(text.split()) <= 5 for text in answers) > len(answers)
    return Guess("target", column, why, inputs, left_out, short=short, gaps=gaps)


def _answer(rows: Sequence[Row], columns: Sequence[str]) -> tuple[str, str]:
    """The column of the answer, and what it was told by."""
    labelled = [
        name
        for name in columns
        if not names_rows(name) and _labels(rows, name, MOST_NAMED if name.lower() in LABELS else MOST_LABELS)
    ]
    if named := _named(labelled, LABELS, lambda name: True):
        return named, "its name, and few values that many rows share"
    if named := _named(columns, TARGETS, lambda name: len(columns) > 1):
        return named, "its name"
    if len(labelled) == 1 and len(columns) > 1:
        return labelled[0], "few values that many rows share"
    if odd := next((name for name in columns if name.lower() in LABELS and len(columns) > 1), None):
        raise UserError(
            f"The column {odd!r} looks like the answer by its name, and not by its values: "
            f"{_why_no_labels(rows, odd)}. Mend it, or name the answer with --answer."
        )
    texts = [name for name in columns if isinstance(rows[0].get(name), str) and name not in labelled]
    if not labelled and (named := _named(texts, TEXTS, lambda name: True)):
        return named, "its name, and no column looks like an answer"
    if len(columns) == 1 and texts:
        return texts[0], "it is the only column"
    could = labelled or columns
    raise UserError(
        "It cannot be told which column holds the answer: name it with --answer, as --answer "
        f"{could[-1]!r}. The columns are {', '.join(map(repr, columns))}."
    )


def _named(columns: Sequence[str], names: Sequence[str], fits: Any) -> str | None:
    """The column with the likeliest of some names that fits."""
    by_name = {column.lower(): column for column in columns}
    found = (by_name[name] for name in names if name in by_name)
    return next((column for column in found if fits(column)), None)


def _are_turns(rows: Sequence[Row], column: str) -> bool:
    first = next((row[column] for row in rows if row.get(column) is not None), None)
    if isinstance(first, str):
        return first.lstrip().startswith("[{")
    return isinstance(first, list) and bool(first) and isinstance(first[0], Mapping)


def _why_no_labels(rows: Sequence[Row], column: str) -> str:
    """Why a column's values are no labels, for who thinks they are."""
    values = [row.get(column) for row in rows]
    if None in values:
        return f"row {values.index(None) + 1} has none"
    if broken := next(
        (one for one in values if isinstance(one, float) and not float(one).is_integer()), None
    ):
        return f"{broken} is no whole number"
    return f"{len({str(one) for one in values}):,} values in {len(values):,} rows"


def _labels(rows: Sequence[Row], column: str, most: int) -> Mapping[str, int]:
    """How many rows each value has, the commonest first; empty if these are no labels, or over `most`."""
    counts: Counter[str] = Counter()
    for row in rows:
        value = row.get(column)
        if value is None or (isinstance(value, float) and not float(value).is_integer()):
            return {}
        try:
            text = plain(value)
        except BadRowError:
            return {}
        if not text.strip() or len(text) > LONGEST_LABEL or "\n" in text:
            return {}
        counts[text] += 1
        if len(counts) > most:
            return {}
    few = len(counts) >= 2 and len(rows) >= LEAST_OF_EACH * len(counts)
    return dict(counts.most_common()) if few else {}


def _inputs(
    rows: Sequence[Row], columns: Sequence[str], *answers: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that a prompt can show, and the rest: names of rows, lists, and what is always the same."""
    others = [name for name in columns if name not in answers]

    def shown(name: str) -> bool:
        values = {value for row in rows if isinstance(value := row.get(name), str | int | float)}
        varied = len(values) > 1 or len(rows) == 1
        counts_rows = len(values) == len(rows) > 1 and all(str(value).isdigit() for value in values)
        return varied and not (names_rows(name) or counts_rows) and any(str(value) for value in values)

    found = [name for name in others if shown(name)][:MOST_INPUTS]
    return tuple(found), tuple(name for name in others if name not in found)


def _gaps(rows: Sequence[Row], inputs: Sequence[str]) -> frozenset[str]:
    return frozenset(name for name in inputs if any(row.get(name) is None for row in rows))
