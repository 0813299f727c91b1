"""Figures that papers have published, as data: shown beside a study's own and never mixed with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks.yaml_file import read_yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        title: What it is of.
        columns: Key to {"title": …} and, where our summary has the same figure, {"ours": its name}.
        rows: Each with a `label`, a number for each column that it has, and what else is known of it.
    """

    title: str
    columns: Mapping[str, Mapping[str, str]]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Published:
    """What one paper has published.

    Attributes:
        title: Author, year, title and arXiv id.
        source: Where the figures were read.
        verified: What about them has been verified, and what could not be.
        notes: What one must know to read them.
    """

    title: str
    source: str
    verified: str
    notes: Sequence[str]
    tables: Sequence[PublishedTable]


def known_published() -> list[str]:
    """The names that `published` may have in a study."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_published(name: str) -> Published:
    """Read the figures of a paper.

    Raises:
        UserError: There are none of this name.
    """
    if name not in known_published():
        raise UserError(f"published: there are no figures {name!r}. {nearest(name, known_published())}")
    values = read_yaml(FOLDER / f"{name}.yaml")
    tables = [PublishedTable(**table) for table in values.pop("tables")]
    return Published(**values, tables=tables)
