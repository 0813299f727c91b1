"""Files of rows, whatever people keep them in: which reader reads which."""

from collections.abc import Callable
from pathlib import Path

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks.documents import ENDINGS, read_documents
from forgetmenot.tasks.tables import Table, read_csv, read_json, read_jsonl, read_parquet, read_tsv

PACKED = ".gz"

READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": lambda path: read_parquet([path]),
    **dict.fromkeys(ENDINGS, read_documents),
}
"""By the end of a file's name; all but parquet may have .gz behind it."""


def read_table(path: Path) -> Table:
    """Read a file of rows by the end of its name, or a folder of texts.

    A text (.txt, .md), and each text below a folder, is cut into pieces; see `forgetmenot.tasks.documents`.

    Raises:
        UserError: The file is of another kind, not UTF-8, or malformed; names the row.
    """
    if path.is_dir():
        return read_documents(path)
    ending = Path(path.name.removesuffix(PACKED)).suffix
    if ending not in READERS or (ending == ".parquet" and path.suffix == PACKED):
        raise UserError(f"{path} is not a file format that can be read. {nearest(ending, READERS)}")
    return READERS[ending](path)
