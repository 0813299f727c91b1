"""The ledger reads what a study has finished, and says no more than the numbers do."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from scipy import stats

from forgetmenot.methods import METHODS
from forgetmenot.report.comparison.learned_and_left import Bar
from forgetmenot.studies.config import expand_study, load_study
from scripts.ledger import NOTHING_READ, PAGE, comparison, corrected, page, pictures, written_reading
from scripts.ledger_chart import chart
from scripts.ledger_runs import BASELINES, gap_closed, read_study, saved
from scripts.papers import PAPER_SAYS

SVG = "{http://www.w3.org/2000/svg}"
STUDY = {
    "name": "made-up",
    "base": {"tasks": "qs-sentiment,qs-paraphrase"},
    "grid": {
        "method, adapter, training.learning_rate": [
            ["sequential", {"kind": "full"}, 0.001],
            ["joint", {"kind": "full"}, 0.001],
            [{"name": "replay", "share": 0.1}, {"kind": "full"}, 0.001],
            ["sequential", {"per_stage": "new"}, 0.004],
            ["o-lora", {"per_stage": "new"}, 0.004],
            ["progressive-prompts", {"kind": "prompt", "per_stage": "new"}, 0.3],
        ],
        "seed": [0, 1, 2],
    },
}
Figures = Mapping[str, list[tuple[float, float | None]]]
# By method and seed: average performance, and the drop since learned (−BWT).
FIGURES: Figures = {
    "sequential": [(0.50, 0.30), (0.52, 0.28), (0.51, 0.29)],
    "joint": [(0.70, None), (0.72, None), (0.71, None)],
    "replay": [(0.65, 0.10), (0.68, 0.06), (0.65, 0.11)],
    "o-lora": [(0.52, 0.28)],
    "progressive-prompts": [(0.60, 0.02)],
}


def _study(folder: Path, figures: Figures = FIGURES) -> Path:
    """A study's directory with results for some of its runs."""
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    for run in expand_study(load_study(STUDY)):
        of_method = figures[run.config.method.name]
        if run.config.seed >= len(of_method):
            continue
        performance, forgetting = of_method[run.config.seed]
        summary = {
            "average_performance": performance,
            "backward_transfer": None if forgetting is None else -forgetting,
            "forgetting": forgetting,
            "learning_accuracy": 0.75,
        }
        cost = {
            "memory_kept": {"01-qs-sentiment": 10, "02-qs-paraphrase": 2_500_000},
            "parameters_added": {"01-qs-sentiment": 0, "02-qs-paraphrase": 1234},
            "past_data": run.config.method.name == "replay",
        }
        results = {"summary": summary, "cost": cost, "majority": {"qs-sentiment": 0.5, "qs-paraphrase": 0.6}}
        seconds = 30.0 if run.config.method.name == "replay" else 20.0
        if (run.config.method.name, run.config.seed) == ("replay", 1):
            seconds = 900.0  # the machine had other work
        path = folder / "runs" / run.config.directory.name
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(run.config.to_yaml())
        (path / "results.json").write_text(json.dumps(results))
        (path / "timing.json").write_text(json.dumps({"train_s": [0, seconds], "eval_s": [5, 5]}))
        environment = {"machine": "Linux x86_64, AVX2", "identity": {"threads": 1, "precision": "fp32"}}
        (path / "environment.json").write_text(json.dumps(environment))
    return folder


def test_figures_are_paired_with_the_baseline_of_the_same_adapter_and_seed(tmp_path: Path) -> None:
    ledger = read_study(_study(tmp_path / "study"))
    by_name = {(e.name, e.config.adapter.kind): e for e in ledger.entries}
    full, replay = by_name["sequential", "full"], by_name["replay", "full"]
    lora, o_lora = by_name["sequential", "lora"], by_name["o-lora", "lora"]
    assert ledger.baseline(replay, "sequential") is full
    assert ledger.baseline(o_lora, "sequential") is lora
    assert ledger.baseline(o_lora, "joint") is None
    found = saved(ledger, replay)
    assert found is not None
    assert found.mean == pytest.approx((0.20 + 0.22 + 0.18) / 3)
    # Student's t with two degrees of freedom, 97.5 %: 4.3027; the deviation of .20, .22, .18 is .02.
    assert found.interval == pytest.approx(
        (0.2 - 4.3027 * 0.02 / 3**0.5, 0.2 + 4.3027 * 0.02 / 3**0.5), abs=1e-5
    )
    assert gap_closed(ledger, replay) == pytest.approx(0.15 / 0.20)
    assert gap_closed(ledger, o_lora) is None


def test_a_share_of_a_gap_that_may_be_none_is_not_printed(tmp_path: Path) -> None:
    uncertain: Figures = {**FIGURES, "joint": [(0.60, None), (0.50, None), (0.53, None)]}
    ledger = read_study(_study(tmp_path / "study", uncertain))
    (replay,) = [entry for entry in ledger.entries if entry.name == "replay"]
    assert gap_closed(ledger, replay) is None


def test_the_page_of_an_unfinished_study_has_the_runs_that_are_there(tmp_path: Path) -> None:
    ledger = read_study(_study(tmp_path / "study"))
    lines = page([ledger], "It helps.").splitlines()
    (replay,) = [line for line in lines if line.startswith("| `replay` (share 0.1) |")]
    assert replay.endswith("| 75% | 1.3× | 2.5 MB | 1,234 | yes |")
    (o_lora,) = [
        line for line in lines if line.startswith("| `o-lora`, new adapter a stage (1 of 3 seeds) † |")
    ]
    assert "| 0.520 | −0.280 | 0.280 | 0.750 | +0.020 | – |" in o_lora
    assert sum(line.startswith("|  *majority class* | 0.550 |") for line in lines) == 3
    assert [line for line in lines if line.startswith("**")] == [
        "**Full fine-tuning**, learning rate 0.001",
        "**LoRA, rank 8, α 16**, learning rate 0.004",
        "**Soft prompts of 10 tokens**, learning rate 0.3",
    ]
    assert any(line.startswith("| `progressive-prompts`, new prompt a stage (1 of 3") for line in lines)
    assert any(", learning rates 0.001, 0.004 and 0.3, texts cut to fit " in line for line in lines)
    assert any(
        line.endswith("Seeds 0, 1, 2. Machine: Linux x86_64, AVX2, 1 thread(s) a run, fp32.")
        for line in lines
    )
    (seen,) = [line for line in comparison([ledger]).splitlines() if line.startswith("| `replay` |")]
    assert seen.endswith("| forgets less: made-up −0.200 |")
    assert not any("`replay` (share 0.1) †" in line for line in lines), "it is above the majority class"
    assert any("1 of 3 seeds) † |" in line for line in lines), ".520 is not above .550"


def test_what_is_sure_is_corrected_for_all_tests_of_the_page(tmp_path: Path) -> None:
    """replay's t is .2 / (.02 / √3) = 17.3: p = .0033, alone sure; of twenty tests of the kind none is."""
    ledger = read_study(_study(tmp_path / "study"))
    found = {key: p for key, (_, p) in corrected([ledger]).items() if p is not None}
    (p,) = found.values()
    assert p == pytest.approx(2 * stats.t.sf(0.2 / (0.02 / 3**0.5), 2))
    many = corrected([ledger] * 20)
    assert all(p >= 0.05 for _, p in many.values() if p is not None)
    (seen,) = [line for line in comparison([ledger] * 20).splitlines() if line.startswith("| `replay` |")]
    assert "forgets less" not in seen


def test_every_table_has_its_picture(tmp_path: Path) -> None:
    ledger = read_study(_study(tmp_path / "study"))
    drawn = pictures([ledger])
    shown = re.findall(r"\]\(methods/(.+?)\)", page([ledger], ""))
    assert shown == list(drawn)
    assert len(shown) == 3
    full = ElementTree.fromstring(drawn["made-up-Full-fine-tuning.svg"])
    names = [one.text for one in full.iter(f"{SVG}text") if one.get("class") == "name"]
    assert names == ["joint", "replay (share 0.1)", "sequential"]


def test_a_picture_lays_figures_out_to_scale() -> None:
    bars = [Bar("joint", 0.7, 0.7, None), Bar("a & b", 0.8, 0.5, (0.4, 0.6)), Bar("single", 0.75, None, None)]
    root = ElementTree.fromstring(chart(bars, 0.45))
    places: dict[str, list[float]] = {"learned": [], "left": []}
    for circle in root.iter(f"{SVG}circle"):
        places[circle.get("class", "")].append(float(circle.get("cx", "nan")))
    learned, left = places["learned"][1:], places["left"][1:]  # the first is the legend's
    assert len(left) == 2
    unit = (learned[1] - left[1]) / 0.3
    assert left[0] == learned[0]
    assert (learned[2] - learned[0]) / unit == pytest.approx(0.05, abs=1e-3)
    (thin,) = [one for one in root.iter(f"{SVG}line") if one.get("class") == "whisker"]
    assert (float(thin.get("x2", "nan")) - float(thin.get("x1", "nan"))) / unit == pytest.approx(
        0.2, abs=1e-3
    )


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    ledger = read_study(_study(tmp_path / "study"))
    assert written_reading(page([ledger], "It helps.\n\nA lot.")) == "It helps.\n\nA lot."
    assert written_reading("") == NOTHING_READ


def test_every_method_has_what_its_paper_says() -> None:
    assert set(METHODS) - set(BASELINES) == set(PAPER_SAYS)


def test_the_page_in_the_docs_has_every_method() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in PAPER_SAYS if f"\n| `{name}` |" not in text] == []
