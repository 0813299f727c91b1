"""Names turned into paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError


def path_safe(name: str) -> str:
    """A name without what does not belong into a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def filled(output: str, values: Mapping[str, Any]) -> Path:
    """The directory of an `output` whose placeholders have these values.

    Raises:
        UserError: If it has another placeholder.
    """
    try:
        return Path(output.format(**values)).expanduser()
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"output: {output!r} has an unknown placeholder. Known: {{{'}, {'.join(values)}}}."
        ) from error
