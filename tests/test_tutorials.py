"""The tutorials: each runs from its first cell to its last, and shows what it is said to."""

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel (the dev extra)")

from scripts.tutorials import FOLDER, execute  # noqa: E402

TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
LEFT = {
    "own-data": ["tickets.yaml", "tickets-run/report.html"],
    "gate": ["check/check.html", "candidate/model.safetensors"],
    "forgetting": ["compared/compare.html"],
    "study": ["study/report.html"],
}
"""What each leaves in its folder."""


def small(path: Path, folder: Path) -> Path:
    """The tutorial with fewer examples to learn and to answer: every cell runs, and in less time."""
    text = path.read_text(encoding="utf-8")
    whole = r"\"epochs\": 2}"
    assert whole in text
    few = text.replace(whole, r"\"epochs\": 1, \"limit\": 96}").replace(
        r"{\"limit\": 200}", r"{\"limit\": 40}"
    )
    (folder / path.name).write_text(few, encoding="utf-8")
    return folder / path.name


def shown(notebook: Any) -> list[int]:
    """The cells that show something."""
    return [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.outputs]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_shows_what_it_holds(path: Path, tmp_path: Path) -> None:
    anew = execute(small(path, tmp_path), tmp_path)
    assert shown(anew) == shown(nbformat.read(str(path), as_version=4)) != []
    for name in LEFT[path.stem]:
        assert (tmp_path / name).is_file()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_names_no_folder_of_the_machine_that_ran_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:tmp|home|root|work|usr)/", text)
    assert "Traceback" not in text


def test_the_page_of_the_tutorials_names_them_all() -> None:
    page = (FOLDER.parent / "tutorials.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(tutorials/([\w-]+)\.ipynb\)", page)) == [path.stem for path in TUTORIALS]
