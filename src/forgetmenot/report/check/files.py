"""The files of a check: check.json, check.md, check.xml and check.html."""

from collections.abc import Mapping
from typing import Any, Protocol

from forgetmenot.report.check.junit import junit
from forgetmenot.report.check.markdown import markdown
from forgetmenot.report.check.page import page


class Folder(Protocol):
    """Where files are written whole."""

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""


def write_check(folder: Folder, content: Mapping[str, Any]) -> None:
    """Write every form of a check.

    Args:
        folder: The check's directory.
        content: That of check.json.
    """
    folder.write_json("check.json", content)  # first: by it the next check knows whose the others are
    folder.write_text("check.md", markdown(content))
    folder.write_text("check.xml", junit(content))
    folder.write_text("check.html", page(content))
