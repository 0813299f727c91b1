"""The live pages of a study: the list of its runs, each run, and the report at the end."""

import shutil
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import forgetmenot
from forgetmenot.report.live import LivePage
from forgetmenot.studies.config import StudyConfig, expand_study, load_study
from forgetmenot.studies.live import StudyPages

REFRESH = '<meta http-equiv="refresh" content="5">'


@pytest.fixture(scope="module")
def begun(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs, of which the first is finished; for reading only."""
    path = tmp_path_factory.mktemp("studies") / "seeds"
    config = load_study(
        {
            "name": "seeds",
            "base": {**tiny, "tasks": tiny["tasks"][:1], "evaluation.limit": 8, "training.limit": 8},
            "grid": {"seed": [0, 1]},
            "output": str(path),
        }
    )
    forgetmenot.run(_runs(config)[0].config)
    (path / "study.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return path


def _runs(config: StudyConfig) -> Any:
    return expand_study(config)


def get(page: LivePage, path: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(page.address).netloc, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_list_says_where_each_run_stands_and_leads_to_its_page(begun: Path) -> None:
    first, second = sorted(run.config.directory.name for run in _runs(load_study(begun / "study.yaml")))
    with forgetmenot.watch(begun) as page:
        status, text = get(page, "/")
        assert status == 200
        assert "1 of 2 runs are done." in text
        assert REFRESH in text
        assert "report.html" not in text
        assert text.count("<td>done</td>") == text.count("<td>not begun</td>") == 1
        for name in (first, second):
            assert f'href="/runs/{name}/"' in text
        report = (begun / "runs" / first / "report.html").read_text(encoding="utf-8")
        assert get(page, f"/runs/{first}/") == (200, report)
        assert "There is nothing to see yet" in get(page, f"/runs/{second}/")[1]
        assert get(page, "/runs/nosuch/")[0] == 404
        assert get(page, "/runs/..%2f..%2fetc/")[0] == 404
        assert get(page, "/report.html")[0] == 404


def test_a_run_that_was_left_is_said_in_the_list(begun: Path, tmp_path: Path) -> None:
    path = tmp_path / "seeds"
    shutil.copytree(begun, path)
    (done,) = (path / "runs").glob("*/")
    (done / "results.json").unlink()
    shutil.rmtree(next((done / "stages").glob("01-*")))
    text = StudyPages(path).page("/", held=False)
    assert text is not None
    assert "not at work. 1 of 2 stages are done. 01-animal is next." in text


def test_a_finished_study_leads_to_its_report_and_asks_no_more(begun: Path, tmp_path: Path) -> None:
    path = tmp_path / "seeds"
    shutil.copytree(begun, path)
    names = [run.config.directory.name for run in _runs(load_study(path / "study.yaml"))]
    shutil.copytree(path / "runs" / names[0], path / "runs" / names[1])
    pages = StudyPages(path)
    text = pages.page("/", held=False)
    assert text is not None
    assert REFRESH in text  # the report is still to be written
    (path / "report.html").write_text("<p>compared</p>")
    text = pages.page("/", held=False)
    assert text is not None
    assert "2 of 2 runs are done." in text
    assert 'href="/report.html"' in text
    assert REFRESH not in text
    assert pages.page("/report.html", held=False) == "<p>compared</p>"


def test_a_study_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("grid: {sed: [0]}\n")
    text = StudyPages(tmp_path).page("/", held=False)
    assert text is not None
    assert "It cannot be read now: " in text
    assert "sed" in text
    assert REFRESH in text
