"""Plain texts as rows: a file, or all of a folder, cut into pieces that a model can take."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.tasks.tables import Row, Table, numbered_lines

ENDINGS = (".txt", ".md")
PIECE = 2000
"""The most characters of a piece, about 500 tokens of English; ours."""

TEXT, DOCUMENT = "text", "document"
"""The columns: a piece, and the file that it is from, relative to the folder."""


def read_documents(path: Path) -> Table:
    """Read a text file, or every .txt and .md below a folder in the order of their names, piece by piece.

    A text is cut where a paragraph ends; a paragraph that is too long alone, where a line or a sentence
    ends, and else behind a blank. Nothing is left out but blanks between pieces. Hidden files and folders are
    passed over.

    Raises:
        UserError: The folder has no texts, or a file is not UTF-8.
    """
    files = _texts_below(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no texts: put files that end in {' or '.join(ENDINGS)} into it.")
    return Table(str(path), (TEXT, DOCUMENT), _rows(path, files), "piece")


def _texts_below(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.rglob("*")
        if path.name.removesuffix(".gz").endswith(ENDINGS)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _rows(root: Path, files: Sequence[Path]) -> Iterator[tuple[int, Row]]:
    number = 0
    for path in files:
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        for piece in pieces("".join(line for _, line in numbered_lines(path))):
            number += 1
            yield number, {TEXT: piece, DOCUMENT: name}


def pieces(text: str, most: int = PIECE) -> list[str]:
    r"""Cut a text into pieces of at most `most` characters, none of them empty.

    >>> pieces("One.\\n\\nTwo.\\n\\nThree.", 12)
    ['One.\\n\\nTwo.', 'Three.']
    """
    text = text.replace("\r\n", "\n")
    found: list[str] = []
    for part in _parts(text, most, (r"\n[ \t]*\n\s*", r"\n", r"(?<=[.!?] )", r"(?<= )")):
        if found and len(found[-1]) + len(part) <= most:
            found[-1] += part
        else:
            found.append(part)
    return [piece.strip() for piece in found if piece.strip()]


def _parts(text: str, most: int, ends: Sequence[str]) -> Iterator[str]:
    """Parts that together are the text, each of at most `most` characters with what ends it."""
    if len(text) <= most:
        yield text
    elif not ends:
        for start in range(0, len(text), most):
            yield text[start : start + most]
    else:
        cuts = [0, *(match.end() for match in re.finditer(ends[0], text)), len(text)]
        for start, stop in pairwise(cuts):
            yield from _parts(text[start:stop], most, ends[1:])
