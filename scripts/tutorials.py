"""Run the tutorials of docs/tutorials, and keep what they show in them.

    python -m scripts.tutorials [NAME...]

Each is executed in an empty folder. What is written to stderr is left out, and so is when a cell ran and on
which Python.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
SECONDS = 900
"""The most that a cell may take."""


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells show.

    Args:
        path: The notebook; it stays as it is.
        folder: Where it runs.

    Raises:
        CellExecutionError: A cell ended in an exception.
    """
    notebook = nbformat.read(str(path), as_version=4)
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def main(names: list[str]) -> None:
    """Execute those that are named, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(execute(path, Path(folder)), str(path))
            print(f"{path.relative_to(FOLDER.parents[1])} is executed.")


if __name__ == "__main__":
    main(sys.argv[1:])
