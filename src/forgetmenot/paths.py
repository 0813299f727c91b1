"""Names turned into paths."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError

LONGEST = 100
"""The most characters of a name in a path: file systems take 255 bytes with suffix, encrypted ones 143."""


def path_safe(name: str) -> str:
    """A name without what does not belong into a path; one that is too long ends in a hash of the whole."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return safe if len(safe) <= LONGEST else f"{safe[: LONGEST - 9]}-{_hash(name)}"


def model_name(title: str) -> str:
    """What a model is called in a path: the last part of its hub id or folder."""
    return path_safe(title.rstrip("/").rpartition("/")[2]) or "model"


def file_name(name: str, asked: Any) -> str:
    """The name of a file, of bounded length, that two different things asked never share.

    Args:
        name: For readers.
        asked: All that tells it from others, as plain data.
    """
    return f"{path_safe(name)}-{_hash(json.dumps(asked, sort_keys=True, default=str))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def at_home(path: str, where: str) -> Path:
    """A path with the home folder for its `~`.

    Args:
        path: As a user wrote it.
        where: The key that it stands under, for an error.

    Raises:
        UserError: It is empty, or there is no such home: no such user, or a user without one.
    """
    if not path.strip():
        raise UserError(f"{where}: it is empty; name a folder, or '.' for this one.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{where}: the home folder of {path!r} cannot be found; write the path out, or set HOME."
        ) from error


def filled(output: str, values: Mapping[str, Any]) -> Path:
    """The directory of an `output` whose placeholders have these values.

    Raises:
        UserError: If it has another placeholder.
    """
    try:
        path = output.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"output: {output!r} has an unknown placeholder. Known: {{{'}, {'.join(values)}}}."
        ) from error
    return at_home(path, "output")


def cache_folder() -> Path | None:
    """Where what can be made anew is kept for later runs.

    `$FORGETMENOT_CACHE`, or `forgetmenot` under `$XDG_CACHE_HOME` or `~/.cache`; None where no folder is
    named and no home can be written, as in containers.
    """
    for variable, inner in (("FORGETMENOT_CACHE", ""), ("XDG_CACHE_HOME", "forgetmenot")):
        if named := os.environ.get(variable):
            return at_home(named, variable) / inner
    try:
        home = Path.home() if os.environ.get("HOME") != "" else None
    except RuntimeError:  # no HOME, and a user id without an entry in /etc/passwd
        home = None
    folder = home and home / ".cache" / "forgetmenot"
    return folder if folder and _can_be_made(folder) else None


def _can_be_made(folder: Path) -> bool:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return there.is_dir() and os.access(there, os.W_OK)
