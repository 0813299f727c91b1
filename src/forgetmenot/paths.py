"""Names that become paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError


def path_safe(name: str) -> str:
    """A name without what does not belong into a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def at_home(path: str, where: str) -> Path:
    """A path with the home folder for its `~`.

    Args:
        path: As a user wrote it.
        where: The key that it stands under, for an error.

    Raises:
        UserError: There is no such home: no such user, or a user without one.
    """
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
            f"output: {output!r} has a placeholder that is none of {{{'}, {'.join(values)}}}."
        ) from error
    return at_home(path, "output")
