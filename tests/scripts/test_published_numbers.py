"""The table of published numbers: resumed measurement by measurement, and how agreement is reckoned."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lm_eval")

from scripts.published_numbers.__main__ import MEASUREMENTS, main
from scripts.published_numbers.agreement import agreement
from scripts.published_numbers.page import PAGE
from scripts.published_numbers.round_again import rounded
from scripts.published_numbers.rows import read_rows

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REAL = Path(os.environ.get("FMN_REAL_MODELS", Path.home() / ".cache" / "forgetmenot-models"))


def answer(place: str, *replies: float | str, **metrics: float) -> dict[str, Any]:
    return {"place": place, "asked": f"hash of {place[:-5]}", "replies": list(replies), "metrics": metrics}


def test_agreement_is_the_largest_difference_of_each_kind() -> None:
    ours = [answer("piqa/1/none", -2.0, -40.0, acc=1.0), answer("piqa/0/none", -1.0, -3.0, acc=1.0)]
    theirs = [answer("piqa/0/none", -1.0, -3.0, acc=0.0), answer("piqa/1/none", -2.01, -40.02, acc=1.0)]
    found = agreement(ours, theirs)
    assert (found.questions, found.likelihoods, found.metrics, found.texts) == (2, 4, 1.0, 0)
    assert found.nats == pytest.approx(0.02)
    assert found.relative == pytest.approx(0.01 / 2.01)


def test_a_written_answer_counts_once_and_its_metrics_by_each_filter() -> None:
    ours = [answer("g/0/stric", "It is 2.", em=0.0), answer("g/0/flexi", "It is 2.", em=1.0)]
    theirs = [answer("g/0/stric", "It is 2!", em=0.0), answer("g/0/flexi", "It is 2!", em=1.0)]
    assert asdict(agreement(ours, ours)) | {"texts": 1, "equal_texts": 1} == asdict(agreement(ours, ours))
    found = agreement(ours, theirs)
    assert (found.questions, found.texts, found.equal_texts, found.metrics) == (1, 1, 0, 0.0)
    assert agreement(ours, [theirs[0], answer("g/0/flexi", "It is 2!", em=0.0)]).metrics == 1.0


def test_answers_to_other_questions_are_not_compared() -> None:
    ours = [answer("piqa/0/none", -1.0)]
    for theirs in ([answer("piqa/1/none", -1.0)], [{**ours[0], "asked": "another"}], []):
        with pytest.raises(ValueError, match="not asked the same"):
            agreement(ours, theirs)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Rows of the tiny model and of one that is not there."""
    row = {
        "task": "piqa",
        "shots": 0,
        "metric": "acc_norm,none",
        "compare": 3,
        "dtype": "fp32",
        "differs": "",
    }
    published = [{"percent": 99.9, "source": "card", "how": "by hand"}]
    rows = {
        "models": {name: {"title": name.title(), "weights": "random"} for name in ("tiny-llama", "absent")},
        "sources": {"card": "A card."},
        "rows": [{**row, "model": "tiny-llama", "published": published}, {**row, "model": "absent"}],
    }
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six questions of PIQA as LLM-Adapters has them."""
    questions = [
        {
            "instruction": "Please choose the correct solution to the question: goal "
            f"{k}\n\nSolution1: do {k}\n\nSolution2: wait, then stop\n\nAnswer format: solution1/solution2",
            "answer": f"solution{1 + k % 2}",
        }
        for k in range(6)
    ]
    path = tmp_path / "data" / "general" / "piqa" / "test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(questions))
    return tmp_path / "data"


def test_the_page_is_made_from_what_is_measured_once(
    tiny_llama: Path, listed: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, results = tmp_path / "page.md", tmp_path / "results"
    command = ["--models", str(tiny_llama.parent), "--data-dir", str(data), "--results", str(results)]
    main([*command, "--rows", "tiny"], listed, document)
    names = [f"tiny-llama-piqa-0-shot.{name}.json" for name in MEASUREMENTS]
    assert capsys.readouterr().out.split() == names
    value, absent, compared, _ = _rows(document)
    assert value[:5] == ["Tiny-Llama", "`piqa`", "0", "acc_norm", "6"]
    assert value[7].startswith("acc ")
    assert value[8] == "99.9 (by hand) [card]"
    assert compared[3:5] == ["3", "6"]
    assert all(float(cell.split()[0]) < 1e-4 for cell in compared[5:8])
    assert compared[8] == "0"
    assert absent[5] == "not yet measured"

    path = results / names[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "value": 0.999, "interval": [0.99, 1.0]}))
    main([*command, "--rows", "tiny"], listed, document)
    assert capsys.readouterr().out == ""
    value, *_ = _rows(document)
    assert (value[5], value[8]) == ("99.90", "**99.9** (by hand) [card]")


def test_a_matrix_is_rounded_to_sixteen_levels_a_group() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 96)
    found = rounded(weight)
    shifted, was = (one.roll(-16, dims=1).reshape(3, 3, 32) for one in (found, weight))
    steps = (was.amax(2) - was.amin(2)) / 15
    assert all(1 < len(group.unique()) <= 16 for row in shifted for group in row)
    assert ((shifted - was).abs().amax(2) <= 0.51 * steps).all()
    assert rounded(torch.zeros(1, 32)).abs().max() == 0


def test_a_model_that_is_not_there_is_named(listed: Path, data: Path, tmp_path: Path) -> None:
    command = ["--models", str(tmp_path), "--data-dir", str(data), "--results", str(tmp_path / "results")]
    with pytest.raises(Exception, match="has no folder 'absent'"):
        main([*command, "--rows", "absent"], listed, tmp_path / "page.md")


def test_the_page_has_every_row() -> None:
    rows = read_rows()
    assert all(one.source in rows.sources for row in rows.rows for one in row.published)
    assert len(_rows(PAGE)) == len(rows.rows) + sum(row.compare is not None for row in rows.rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in read_rows().rows if row.compare and row.task in ("arc_easy", "gsm8k")], ids=str
)
def test_real_models_answer_as_lm_evals_own(row: Any) -> None:
    """In fp32: the same metrics, and log-likelihoods that differ by what fp32 rounds."""
    model = REAL / row.model
    if not model.is_dir() or not (SHARED / "data" / "general").is_dir():
        pytest.skip(f"{model} or the data beside this checkout is not on this machine (FMN_REAL_MODELS)")
    few = row.model_copy(update={"compare": 4})
    ours, theirs = (
        MEASUREMENTS[side](few, model, SHARED / "data")["answers"] for side in ("ours-fp32", "hflm-fp32")
    )
    found = agreement(ours, theirs)
    assert (found.questions, found.metrics, found.equal_texts) == (4, 0.0, found.texts)
    assert found.relative < 1e-4


def _rows(document: Path) -> list[list[str]]:
    """The rows of both tables."""
    lines = [line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [one for one in cells if one[0] not in ("model", "---")]
