"""The ledger reads what a study has finished, and says no more than the numbers do."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from forgetmenot.methods import METHODS
from forgetmenot.metrics import holm
from forgetmenot.report.comparison.claims import judge
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.learned_and_left import Bar
from forgetmenot.report.comparison.runs import read_run
from forgetmenot.report.comparison.weighted import END, LEARNED, LOST
from forgetmenot.studies.config import expand_study, load_study
from scripts.ledger import NOTHING_READ, PAGE, page, pictures, written_reading
from scripts.ledger_chart import chart
from scripts.ledger_methods import methods, papers
from scripts.ledger_runs import (
    BASELINES,
    Entry,
    Ledger,
    against_sequential,
    differences,
    gap_closed,
    read_study,
    times,
)
from tests.report.compared_runs import write_answers

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
STUDY = {
    "name": "made-up",
    "base": {"tasks": "qs-sentiment,qs-paraphrase"},
    "grid": {
        "method, adapter, training.learning_rate": [
            ["sequential", {"kind": "full"}, 0.001],
            ["joint", {"kind": "full"}, 0.001],
            [{"name": "replay", "share": 0.1}, {"kind": "full"}, 0.001],
            ["sequential", {"per_stage": "continue"}, 0.004],
            ["o-lora", {"per_stage": "new"}, 0.004],
        ],
        "seed": [0, 1, 2],
    },
    "protocol": {
        "claims": [
            {
                "says": "Replay ends higher.",
                "conditions": [{"figure": "final mean", "weights": {"replay": 1, "joint": -1}}],
            }
        ]
    },
}
KEPT = {"sequential": 0.25, "joint": 0.9, "replay": 0.8, "o-lora": 0.6}


def _study(folder: Path, finished: Mapping[str, int] | None = None) -> Path:
    """A study's directory with results for some of its runs: so many seeds of each method."""
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    for place, run in enumerate(expand_study(load_study(STUDY))):
        method, seed = run.config.method.name, run.config.seed
        if seed >= (finished or {}).get(method, 3):
            continue
        path = folder / "runs" / run.config.directory.name
        rng = np.random.default_rng(place)
        shares = {"qs-sentiment": (0.5, 0.9, KEPT[method]), "qs-paraphrase": (0.5, 0.5, 0.8)}
        write_answers(
            path, {task: np.array([rng.random(400) < p for p in row]) for task, row in shares.items()}
        )
        results: dict[str, Any] = json.loads((path / "results.json").read_text())
        results["cost"] = {
            "memory_kept": {"01-qs-sentiment": 10, "02-qs-paraphrase": 2_500_000},
            "parameters_added": {"01-qs-sentiment": 0, "02-qs-paraphrase": 1234},
            "answer_tokens": {
                "01-qs-sentiment": {"new": 60, "rehearsed": 0},
                "02-qs-paraphrase": {"new": 30, "rehearsed": 10 if method == "replay" else 0},
            },
            "past_data": method in ("replay", "joint"),
        }
        if method == "joint":
            results["summary"]["backward_transfer"] = None
        (path / "results.json").write_text(json.dumps(results))
        seconds = 30.0 if method == "replay" else 20.0
        if (method, seed) == ("replay", 1):
            seconds = 900.0  # the machine had other work
        (path / "config.yaml").write_text(run.config.to_yaml())
        (path / "timing.json").write_text(json.dumps({"train_s": [0, seconds], "eval_s": [5, 5]}))
        environment = {"machine": "Linux x86_64, AVX2", "identity": {"threads": 1, "precision": "fp32"}}
        (path / "environment.json").write_text(json.dumps(environment))
    return folder


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return read_study(_study(tmp_path_factory.mktemp("whole") / "study"))


def _entry(ledger: Ledger, name: str, kind: str) -> Entry:
    (found,) = [one for one in ledger.entries if (one.name, one.config.adapter.kind) == (name, kind)]
    return found


def _figures(entry: Entry, name: str) -> np.ndarray[Any, Any]:
    by_seed = entry.figure(name)
    return np.array([by_seed[seed] for seed in sorted(by_seed)])


def test_figures_are_paired_with_the_baseline_of_the_same_adapter_and_seed(ledger: Ledger) -> None:
    full, replay = _entry(ledger, "sequential", "full"), _entry(ledger, "replay", "full")
    assert ledger.baseline(replay, "sequential") is full
    found = against_sequential(ledger, replay, LOST)
    assert found is not None
    ours, theirs = (-_figures(one, "backward_transfer") for one in (replay, full))
    assert found.difference == pytest.approx(np.mean(ours - theirs))
    assert found.seeds == 3
    learned = against_sequential(ledger, replay, LEARNED)
    assert learned is not None
    gained = _figures(replay, "learning_accuracy") - _figures(full, "learning_accuracy")
    assert learned.difference == pytest.approx(np.mean(gained))
    assert against_sequential(ledger, full, LOST) is None, "it is the baseline"
    assert against_sequential(ledger, _entry(ledger, "joint", "full"), END) is None


def test_a_method_that_needs_a_new_adapter_has_the_baseline_of_its_kind(ledger: Ledger) -> None:
    o_lora = _entry(ledger, "o-lora", "lora")
    assert ledger.baseline(o_lora, "sequential") is _entry(ledger, "sequential", "lora")
    assert ledger.baseline(o_lora, "joint") is None, "it has another kind of adapter"
    assert gap_closed(ledger, o_lora) is None


def test_the_share_of_the_gap_that_is_closed(ledger: Ledger) -> None:
    replay, joint, low = (_entry(ledger, name, "full") for name in ("replay", "joint", "sequential"))
    ends = [_figures(one, "average_performance") for one in (replay, joint, low)]
    assert gap_closed(ledger, replay) == pytest.approx(
        np.mean(ends[0] - ends[2]) / np.mean(ends[1] - ends[2])
    )
    assert gap_closed(ledger, joint) is None


def test_a_share_of_a_gap_that_may_be_none_is_not_printed(tmp_path: Path) -> None:
    one_seed = read_study(_study(tmp_path / "study", {"joint": 1}))
    assert gap_closed(one_seed, _entry(one_seed, "replay", "full")) is None


def test_one_slow_run_does_not_make_a_method_slow(ledger: Ledger) -> None:
    assert times(ledger, _entry(ledger, "replay", "full")) == pytest.approx(40 / 30)


def test_what_is_sure_is_corrected_for_all_tests_of_the_page(ledger: Ledger) -> None:
    found = differences([ledger])
    assert len(found) == 2 * 3, "two methods, three figures"
    raw = {key: one.contrast.p for key, one in found.items() if one.contrast.p is not None}
    assert [found[key].p_holm for key in raw] == holm([p for p in raw.values() if p is not None])
    many = differences([ledger] * 40)
    key = min(raw, key=lambda one: raw[one] or 1.0)
    alone, among = found[key].p_holm, many[key].p_holm
    assert alone is not None
    assert among is not None
    assert alone < 0.05 <= among
    told, repeated = (
        [line for line in methods([ledger] * n, differences([ledger] * n)).splitlines() if "Seen" in line]
        for n in (1, 40)
    )
    assert any("**" in line.removeprefix("- **Seen**") for line in told)
    assert not any("**" in line.removeprefix("- **Seen**") for line in repeated)


def test_the_page_of_an_unfinished_study_has_the_runs_that_are_there_and_judges_no_claim(
    tmp_path: Path,
) -> None:
    ledger = read_study(_study(tmp_path / "study", {"o-lora": 1}))
    text = page([ledger], "It helps.")
    lines = text.splitlines()
    (replay,) = [line for line in lines if line.startswith("| `replay` (share 0.1)")]
    assert "| 1.3× | 10% | 2.5 MB | 1,234 | yes |" in replay
    assert any(line.startswith("| `o-lora`, new adapter a stage (1 of 3 seeds)") for line in lines)
    assert [line for line in lines if line.startswith("**") and "learning rate" in line] == [
        "**Full fine-tuning**, learning rate 0.001",
        "**LoRA, rank 8, α 16**, learning rate 0.004",
    ]
    assert any(
        line.endswith("Seeds 0, 1, 2. Machine: Linux x86_64, AVX2, 1 thread(s) a run, fp32.")
        for line in lines
    )
    assert ledger.claims == []
    assert "stated before" not in text


def test_claims_are_judged_as_the_study_itself_judges_them(tmp_path: Path) -> None:
    folder = _study(tmp_path / "study")
    ledger = read_study(folder)
    study = load_study(folder / "study.yaml")
    runs = [read_run(folder / "runs" / run.config.directory.name, run.varies) for run in expand_study(study)]
    assert [one.to_json() for one in ledger.claims] == [
        one.to_json() for one in judge(Comparison("made-up", runs), study.protocol.claims)
    ]
    text = page([ledger], "")
    assert "### What was stated before the runs" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| Replay ends higher. |")]
    assert "final mean: replay − joint > 0" in row


def test_a_row_below_the_commonest_answer_is_marked(ledger: Ledger, tmp_path: Path) -> None:
    assert "†" not in page([ledger], "").split("## made-up")[1]
    folder = _study(tmp_path / "study")
    for results in folder.glob("runs/*/results.json"):
        results.write_text(re.sub(r'"majority": \{[^}]*\}', '"majority": {"a": 0.99}', results.read_text()))
    assert "†" in page([read_study(folder)], "").split("## made-up")[1]


def test_every_table_has_its_pictures(ledger: Ledger) -> None:
    drawn = pictures([ledger])
    shown = re.findall(r"\]\(methods/(.+?)\)", page([ledger], ""))
    assert sorted(shown) == sorted(drawn)
    assert len(shown) == 4
    full = ElementTree.fromstring(drawn["made-up-Full-fine-tuning.svg"])
    names = [one.text for one in full.iter(f"{SVG}text") if one.get("class") == "name"]
    assert names == ["joint", "replay (share 0.1)", "sequential"]
    balance = ElementTree.fromstring(drawn["made-up-Full-fine-tuning-balance.svg"])
    assert len(list(balance.iter(f"{SVG}circle"))) == 2, "joint learns nothing in turn"
    assert "joint" in [text.text for text in balance.iter(f"{SVG}text")], "its line"


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


def test_what_was_written_by_hand_stays(ledger: Ledger) -> None:
    assert written_reading(page([ledger], "It helps.\n\nA lot.")) == "It helps.\n\nA lot."
    assert written_reading("") == NOTHING_READ


def test_every_method_has_what_its_paper_says_and_tests_that_are_there() -> None:
    said = papers()
    assert set(METHODS) - set(BASELINES) == set(said)
    for name, paper in said.items():
        assert paper["says"].rstrip(".") == paper["says"], name
        assert paper["differs"].rstrip(".") == paper["differs"], name
        assert paper["checked"], name
        for test in paper["checked"]:
            file, _, function = test.partition("::")
            assert re.search(rf"^ *def {function}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_the_page_in_the_docs_has_every_method() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in papers() if f"\n### `{name}`\n" not in text] == []
