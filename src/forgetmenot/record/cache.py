"""What is kept in the cache's folder for later runs; all of it can be made anew."""

from dataclasses import dataclass
from pathlib import Path

from forgetmenot.paths import cache_folder

FROZEN_LAYERS = "frozen-layers"
"""The folder of the states of frozen layers."""

KINDS = {"encoded examples": "*.npz", "states of frozen layers": f"{FROZEN_LAYERS}/*.states"}
LOCKS = f"{FROZEN_LAYERS}/*.lock"


@dataclass(frozen=True)
class Kept:
    """What is kept of one kind.

    Attributes:
        what: The kind, for readers.
        files: How many files.
        size: Their bytes.
    """

    what: str
    files: int
    size: int


def kept(folder: Path | None) -> list[Kept]:
    """What lies in a cache's folder, by kind."""
    found = []
    for what, pattern in KINDS.items():
        sizes = [path.stat().st_size for path in folder.glob(pattern)] if folder is not None else []
        found.append(Kept(what, len(sizes), sum(sizes)))
    return found


def clear(folder: Path | None = None) -> list[Kept]:
    """Remove what is kept, and say what it was. A run that reads it at the time keeps what it has opened.

    Args:
        folder: The cache's; None for the one in use.
    """
    folder = folder if folder is not None else cache_folder()
    removed = kept(folder)
    if folder is not None:
        for path in [path for pattern in (*KINDS.values(), LOCKS) for path in folder.glob(pattern)]:
            path.unlink(missing_ok=True)
    return removed
