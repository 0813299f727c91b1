"""The picture of learning against retention."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.learned_and_kept import Balance, JointEnd, balance_picture
from forgetmenot.report.comparison.page import comparison_page, short_name
from forgetmenot.report.comparison.runs import read_run
from tests.report.compared_runs import write_answers


def _drawn(*methods: Balance, joint: JointEnd | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(balance_picture(methods, joint))


def _place(dot: ElementTree.Element) -> tuple[float, float]:
    return float(dot.attrib["cx"]), float(dot.attrib["cy"])


def test_more_learned_lies_to_the_right_and_more_kept_above() -> None:
    figure = _drawn(Balance("a", 0.6, -0.3), Balance("b", 0.8, -0.1))
    first, second = (_place(dot) for dot in figure.iter("circle"))
    assert first[0] < second[0]
    assert first[1] > second[1]


def test_whiskers_end_where_the_intervals_do() -> None:
    figure = _drawn(Balance("a", 0.6, -0.3, (0.5, 0.7), (-0.4, -0.2)), Balance("b", 0.8, -0.1))
    (across, upright) = (line for line in figure.iter("line") if line.attrib["class"] == "whisker")
    dot, other = (_place(one) for one in figure.iter("circle"))
    assert float(across.attrib["x2"]) - float(across.attrib["x1"]) == pytest.approx(
        other[0] - dot[0], abs=0.2
    )
    assert float(upright.attrib["y2"]) - float(upright.attrib["y1"]) == pytest.approx(
        dot[1] - other[1], abs=0.2
    )
    assert float(across.attrib["y1"]) == float(across.attrib["y2"]) == pytest.approx(dot[1], abs=0.1)
    assert (float(across.attrib["x1"]) + float(across.attrib["x2"])) / 2 == pytest.approx(dot[0], abs=0.1)
    assert float(upright.attrib["x1"]) == float(upright.attrib["x2"]) == pytest.approx(dot[0], abs=0.1)
    assert (float(upright.attrib["y1"]) + float(upright.attrib["y2"])) / 2 == pytest.approx(dot[1], abs=0.1)


def test_the_dashed_line_passes_through_every_method_that_ends_as_joint_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = ("a", "b", "c")
    right = {task: rng.random((4, 50)) < 0.6 for task in tasks}
    write_answers(tmp_path / "run", right)
    summary = json.loads((tmp_path / "run" / "results.json").read_text())["summary"]
    joint = JointEnd(summary["average_performance"], 3)
    assert joint.kept(summary["learning_accuracy"]) == pytest.approx(summary["backward_transfer"])
    assert joint.learned(summary["backward_transfer"]) == pytest.approx(summary["learning_accuracy"])
    same = Balance("as joint", summary["learning_accuracy"], summary["backward_transfer"])
    figure = _drawn(same, Balance("other", 0.9, -0.3), joint=joint)
    (line,) = (line for line in figure.iter("line") if line.attrib["class"] == "majority")
    x1, y1, x2, y2 = (float(line.attrib[key]) for key in ("x1", "y1", "x2", "y2"))
    x, y = _place(next(figure.iter("circle")))
    assert y1 + (y2 - y1) * (x - x1) / (x2 - x1) == pytest.approx(y, abs=0.3)


def test_names_cover_no_other_name_and_no_dot() -> None:
    rng = np.random.default_rng(3)
    methods = [Balance(f"method-{k}", *rng.uniform((0.5, -0.4), (0.9, 0.0))) for k in range(12)]
    figure = _drawn(*methods)
    named = {text.text: text for text in figure.iter("text") if str(text.text).startswith("method-")}
    assert len(named) == 12
    boxes = []
    for text in named.values():
        wide = len(str(text.text)) * 6.8
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        boxes.append((x - (wide if text.attrib["text-anchor"] == "end" else 0), y - 11, wide, 13))
    dots = [(x - 5, y - 5, 10, 10) for x, y in map(_place, figure.iter("circle"))]
    for k, one in enumerate(boxes):
        for other in [*boxes[k + 1 :], *dots]:
            apart = (
                one[0] + one[2] <= other[0]
                or other[0] + other[2] <= one[0]
                or one[1] + one[3] <= other[1]
                or other[1] + other[3] <= one[1]
            )
            assert apart, (one, other)


def test_a_study_shows_it_with_short_names_and_the_line_of_joint(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for method, rate in (("sequential", 0.001), ({"name": "replay", "share": 0.1}, 0.002), ("joint", 0.001)):
        for seed in (0, 1):
            folder = tmp_path / f"{method if isinstance(method, str) else 'replay'}-{seed}"
            write_answers(folder, {task: rng.random((4, 50)) < 0.7 for task in "abc"})
            if method == "joint":  # it has one stage, after which nothing came
                results = json.loads((folder / "results.json").read_text())
                results["summary"]["backward_transfer"] = None
                (folder / "results.json").write_text(json.dumps(results))
            runs.append(read_run(folder, {"method": method, "training.learning_rate": rate, "seed": seed}))
    comparison = Comparison("mine", runs)
    names = [short_name(comparison, group) for group in comparison.groups]
    assert names == ["sequential", "replay", "joint"]
    page = comparison_page(comparison)
    picture = page.partition('svg class="balance"')[2].partition("</svg>")[0]
    assert picture.count('class="left"') == 2
    assert picture.count('class="majority"') == 1
    assert ">joint<" in picture
    assert "Learning against retention" in page
    models = [
        read_run(run.path or folder, {"model": model, "method": run.varies["method"], "seed": 0})
        for model, run in (("a", runs[0]), ("b", runs[2]))
    ]
    both = Comparison("mine", models)
    assert [short_name(both, one) for one in both.groups] == [one.name for one in both.groups], (
        "of two models"
    )
    twice = Comparison(
        "mine", [*runs[:2], read_run(runs[2].path or folder, {"method": "sequential", "seed": 0})]
    )
    assert [short_name(twice, group) for group in twice.groups] != ["sequential", "sequential"]


def test_one_method_at_several_learning_rates_is_one_line_with_one_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for method in ("sequential", {"name": "replay", "share": 0.1}):
        for rate in (0.001, 0.002, 0.004):
            folder = tmp_path / f"{method if isinstance(method, str) else 'replay'}-{rate}"
            write_answers(folder, {task: rng.random((4, 50)) < 0.7 for task in "abc"})
            runs.append(read_run(folder, {"method": method, "training.learning_rate": rate, "seed": 0}))
    picture = comparison_page(Comparison("mine", runs)).partition('svg class="balance"')[2]
    picture = picture.partition("</svg>")[0]
    assert picture.count('class="series"') == 4, "two lines of three points"
    assert picture.count('class="left"') == 6
    assert picture.count(">sequential<") == picture.count(">replay<") == 1


def test_methods_with_a_rate_of_their_own_are_no_series(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for method, rate in (("sequential", 0.001), ("ewc", 0.002)):
        write_answers(tmp_path / method, {task: rng.random((4, 50)) < 0.7 for task in "abc"})
        runs.append(
            read_run(tmp_path / method, {"method": method, "training.learning_rate": rate, "seed": 0})
        )
    assert 'class="series"' not in comparison_page(Comparison("mine", runs))
