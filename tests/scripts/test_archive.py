"""The archive of a study: small, without texts, and enough to go on and to compute every number again."""

import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.record.layout import PREDICTIONS, RESULTS, stage_folder
from forgetmenot.record.predictions import read_predictions
from forgetmenot.studies.study import study
from scripts.archive import check, pack, unpack
from scripts.same_results import differences


@pytest.fixture
def config(tiny: Mapping[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A study of two methods of the tiny model."""
    return {
        "base": {
            **tiny,
            "tasks": tiny["tasks"][:2],
            "evaluation": {"limit": 8},
            "training": {"limit": 8, "batch_size": 8},
            "checkpoints": "none",
        },
        "grid": {"method": ["sequential", "joint"]},
        "output": str(tmp_path / "study"),
    }


def test_a_study_goes_on_from_its_archive(config: dict[str, Any], started: list[str], tmp_path: Path) -> None:
    folder, archive = tmp_path / "study", tmp_path / "evidence" / "mine"
    before = study(config)
    names = sorted(run.path.name for run in before.runs)
    assert pack(folder, archive) == names
    assert pack(folder, archive) == [], "they are there"
    first = {file.name: file.read_bytes() for file in archive.rglob("*.*")}
    for file in archive.glob("*/*.tar.xz"):
        file.unlink()
    pack(folder, archive)
    assert {file.name: file.read_bytes() for file in archive.rglob("*.*")} == first, "the same bytes again"

    folder.rename(tmp_path / "gone")
    assert unpack(archive, folder) == names
    again = study(config)
    assert len(started) == 2, "no run was started again"
    old, new = ({**one.results, "runs": sorted(one.results["runs"], key=str)} for one in (before, again))
    assert [text for kind, text in differences(old, new) if kind == "differs"] == []
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "gone" / "report.html").read_text(encoding="utf-8")


def test_no_text_of_an_example_is_archived(
    config: dict[str, Any], started: list[str], tmp_path: Path
) -> None:
    run = study(config).runs[0]
    whole = read_predictions(stage_folder(run.path, run.results["stages"][1]["name"]) / PREDICTIONS)
    texts = [text for one in whole.values() for text in one.prompt_text if text]
    assert texts, "there are some to leave out"
    pack(tmp_path / "study", tmp_path / "archive")
    with tarfile.open(tmp_path / "archive" / "runs" / f"{run.path.name}.tar.xz") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    small = tmp_path / "out" / run.path.name
    kept = b"".join(file.read_bytes() for file in small.rglob("*") if file.is_file())
    assert not any(text.encode() in kept for text in texts)
    for task, one in read_predictions(
        stage_folder(small, run.results["stages"][1]["name"]) / PREDICTIONS
    ).items():
        assert one.ids == whole[task].ids
        assert one.predicted == whole[task].predicted
        assert one.prompt_text == [None] * len(one)
        for row, other in zip(one.log_likelihoods, whole[task].log_likelihoods, strict=True):
            assert row == pytest.approx(other, rel=1e-3)


def test_a_check_computes_the_scores_from_the_answers(
    config: dict[str, Any], started: list[str], tmp_path: Path
) -> None:
    study(config)
    path = next((tmp_path / "study" / "runs").glob(f"*/{RESULTS}"))
    results = json.loads(path.read_text())
    pack(tmp_path / "study", tmp_path / "archive")
    assert [reason for _, reason in check(tmp_path / "archive")] == [None, None]
    results["matrix"][-1][0] = 0.123
    path.write_text(json.dumps(results), encoding="utf-8")
    for file in (tmp_path / "archive").glob("*/*.tar.xz"):
        file.unlink()
    (path.parent / "seal.json").unlink()
    pack(tmp_path / "study", tmp_path / "archive")
    reasons = dict(check(tmp_path / "archive"))
    assert "is not what its predictions give" in str(reasons.pop(path.parent.name))
    assert list(reasons.values()) == [None]


def test_a_pilot_is_archived_too(config: dict[str, Any], started: list[str], tmp_path: Path) -> None:
    finished = study(config).runs[0]
    pilot = tmp_path / "study" / "pilot" / "joint-100"
    shutil.copytree(finished.path, pilot)
    assert "joint-100" in pack(tmp_path / "study", tmp_path / "archive")
    shutil.rmtree(pilot)
    assert unpack(tmp_path / "archive", tmp_path / "study") == ["joint-100"]
    assert (pilot / RESULTS).is_file()
