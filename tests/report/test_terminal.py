import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forgetmenot.report.terminal import LiveTable, print_matrix

MakeRun = Callable[..., Path]

TASKS = ["sst2", "mrpc"]
STAGES = ["00-base", "01-sst2", "02-mrpc"]
METRICS = {"sst2": "accuracy", "mrpc": "accuracy"}


def shown(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


def printed(run_dir: Path, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_matrix(json.loads((run_dir / "results.json").read_text()), console)
    return console.export_text()


def test_an_empty_table_shows_the_stages_to_come() -> None:
    text = shown(LiveTable(TASKS, STAGES, METRICS))
    assert "accuracy" in text
    assert re.search(r"02-mrpc +· +·", text)


def test_the_table_fills_and_marks_what_was_learned_and_what_changed_since() -> None:
    table = LiveTable(TASKS, STAGES, METRICS)
    table.fill(0, {"sst2": 0.5, "mrpc": 0.6})
    table.fill(1, {"sst2": 0.9, "mrpc": 0.6})
    assert re.search(r"01-sst2 +0\.900 +\* +0\.600 *\n", shown(table))
    assert re.search(r"02-mrpc +· +·", shown(table))
    table.fill(2, {"sst2": 0.7, "mrpc": 0.8})
    assert re.search(r"02-mrpc +0\.700 +−0\.200 +0\.800 +\*", shown(table))


def test_a_line_of_scores_writes_a_loss_as_the_table_does() -> None:
    table = LiveTable(["chat", "sst2"], STAGES, {"chat": "loss", "sst2": "accuracy"})
    row = {"chat": -8.135, "sst2": None}
    table.fill(0, row)
    assert table.line(row) == "chat 8.135  sst2 missing"
    assert re.search(r"00-base +8\.135 ", shown(table))


def test_the_footer_comes_with_the_summary() -> None:
    table = LiveTable(TASKS, STAGES, METRICS)
    assert "average performance" not in shown(table)
    table.finish({"average_performance": 0.75, "backward_transfer": -0.2, "forgetting": None})
    assert "average performance 0.750   backward transfer −0.200   forgetting (Chaudhry) –" in shown(table)


def test_a_missing_cell_says_so() -> None:
    table = LiveTable(TASKS, STAGES, METRICS)
    table.fill(0, {"sst2": 0.5, "mrpc": None})
    assert re.search(r"00-base +0\.500 +missing", shown(table))


def test_joint_and_single_are_told_by_their_stages() -> None:
    joint = LiveTable(TASKS, ["00-base", "01-joint"], METRICS, trains_on=[[], TASKS])
    joint.fill(0, {"sst2": 0.5, "mrpc": 0.5})
    joint.fill(1, {"sst2": 0.9, "mrpc": 0.8})
    assert re.search(r"01-joint +0\.900 +\* +0\.800 +\*", shown(joint))
    single = LiveTable(TASKS, STAGES, METRICS, follows=[True, False, False])
    for i in range(3):
        single.fill(i, {"sst2": 0.9 - 0.1 * i, "mrpc": 0.8})
    assert "−" not in shown(single)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_task_is_lost(width: int) -> None:
    tasks = [f"task-{i}" for i in range(16)]
    table = LiveTable(tasks, ["00-base", "01-task-0"], dict.fromkeys(tasks, "accuracy"))
    table.fill(0, dict.fromkeys(tasks, 0.5))
    text = shown(table, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert all(re.search(rf"\b{task}\b", text) for task in tasks)
    assert text.count("0.500") == 16


def test_colours_show_scores_above_the_majority_class_only() -> None:
    table = LiveTable(TASKS, STAGES, METRICS, majority={"sst2": 0.6, "mrpc": 0.4})
    table.fill(0, {"sst2": 0.5, "mrpc": 0.9})
    console = Console(
        width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor", no_color=False
    )
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[2m 0\.500 ", text)
    assert re.search(r"\x1b\[[\d;]*48;2;[\d;]+m 0\.900 ", text)


def test_the_finished_table_says_what_became_of_each_task(make_run: MakeRun) -> None:
    text = printed(make_run(never_learned=["cola"], also_score=["rte"]))
    assert re.search(r"chance level +0\.5\d\d +0\.5\d\d", text)
    assert re.search(r"95 % at the end +0\.\d{3}\.\.0\.\d{3}", text)
    assert re.search(r"mrpc +kept +forgotten +gained *\n400 examples +\+1\.5 points +−28\.7 points", text)
    assert re.search(r"margin 3 points +−2\.9 to \+5\.9 +−33\.5 to −24\.4", text)
    assert re.search(r"rte +kept +– +–", text)
    assert re.search(
        r"forgetting \(Chaudhry\) +0\.\d{3} +cross-fitted 0\.\d{3}, 0\.\d{3} to 0\.\d{3} +0\.0\d\d", text
    )
    assert "Trained on sst2, mrpc, cola and mnli in turn" in text
    assert text.index("base-4m forgot mrpc") < text.index("Trained on sst2")


def test_the_finished_table_gives_reasons(make_run: MakeRun) -> None:
    text = printed(make_run(tasks=["sst2"], also_score=["rte"]))
    assert re.search(r"about \d+ would do", text)
    assert "The only task was learned in the last stage" in " ".join(text.split())


@pytest.mark.parametrize("method", ["joint", "single"])
def test_other_methods_print_too(make_run: MakeRun, method: str) -> None:
    assert "base-4m learned sst2" in printed(make_run(method))
