"""What is kept in the cache's folder for later runs; all of it can be made anew."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.paths import cache_folder

FROZEN_LAYERS = "frozen-layers"
"""The folder of the states of frozen layers."""

KINDS = {
    "encoded examples": ("*.npz", ".*.npz.*.writing"),
    "states of frozen layers": (f"{FROZEN_LAYERS}/*.states", f"{FROZEN_LAYERS}/.*.states.*.writing"),
}
"""What lies there, by kind: whole files, and what is being written, or was when a run was killed."""

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


def kept_in_cache(folder: str | Path | None) -> list[Kept]:
    """What lies in a cache's folder, by kind."""
    found = []
    for what, patterns in KINDS.items():
        sizes = []
        for path in _files(folder, patterns):
            with suppress(OSError):  # another process has just removed it
                sizes.append(path.stat().st_size)
        found.append(Kept(what, len(sizes), sum(sizes)))
    return found


def clear_cache(folder: str | Path | None = None) -> list[Kept]:
    """Remove what is kept, and say what it was. A run that reads it at the time keeps what it has opened.

    Args:
        folder: The cache's; None for the one in use.

    Raises:
        UserError: Something may not be removed.
    """
    folder = folder if folder is not None else cache_folder()
    removed = kept_in_cache(folder)
    for path in _files(folder, [*(one for patterns in KINDS.values() for one in patterns), LOCKS]):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{path} cannot be removed ({error.strerror}); whoever owns it must remove it."
            ) from error
    return removed


def _files(folder: str | Path | None, patterns: Sequence[str]) -> list[Path]:
    return [] if folder is None else [path for pattern in patterns for path in Path(folder).glob(pattern)]
