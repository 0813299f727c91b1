"""A table as Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(rows: Iterable[list[str]]) -> str:
    """A header and its rows as a table of Markdown."""
    header, *body = rows
    return "\n".join(map(_line, [header, ["---"] * len(header), *body]))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
