from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from benchmarks.counting import Work
from benchmarks.table import COLUMNS, ROW, Comparison, Way, render, write
from benchmarks.timing import Pairs, fastest, in_turn
from benchmarks.workload import Row
from forgetmenot.errors import UserError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; work moves it."""
    now = [0.0]
    monkeypatch.setitem(timing._CLOCKS, "wall", lambda: now[0])
    return now


def test_two_sides_are_timed_in_turn(clock: list[float]) -> None:
    done: list[str] = []

    def work(name: str, seconds: list[float]) -> None:
        done.append(name)
        clock[0] += seconds.pop(0)

    ours, theirs = [1.0, 2.0, 4.0], [3.0, 8.0, 8.0]
    works = [lambda: work("A", ours), lambda: work("B", theirs)]
    pairs = Pairs(*in_turn(works, repeats=3, clock="wall", title="a test"))
    assert done == ["A", "B"] * 3
    assert pairs == Pairs((1, 2, 4), (3, 8, 8))
    assert pairs.ratios == [2, 3, 4]
    assert pairs.ratio == 3


def test_the_machines_rate_is_that_of_its_fastest_product(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([4.0, 2.0, 8.0])
    monkeypatch.setattr(timing, "PRODUCTS", 3)
    monkeypatch.setitem(timing.PRODUCT, "cpu", 4)

    def multiply(*_: object, **__: object) -> None:
        clock[0] += next(seconds)

    monkeypatch.setattr(torch, "mm", multiply)
    assert timing.product_rate(torch.device("cpu"), torch.float32, "wall") == 2 * 4**3 / 2


def test_the_fastest_choice_is_taken(clock: list[float]) -> None:
    warm = False

    def work(seconds: float) -> None:
        nonlocal warm
        clock[0] += seconds if warm else 10.0
        warm = True

    assert fastest([1.0, 3.0, 2.0], work, "wall", "a test") == 1.0


def comparison(model: str, later: bool = False) -> Comparison:
    work = Work(positions=10, head_rows=2, flops=100)
    ways = [Way(Pairs((1.0, 1.0), (2.0, 3.0)), work)]
    if later:
        ways += [Way(Pairs((0.5, 0.5), (2.0, 3.0)), replace(work, flops=20))]
    return Comparison(
        row=Row("small", 8, "top" if later else "all"),
        model=model,
        layers="top 1" if later else "all",
        machine="a machine",
        ways=tuple(ways),
        theirs=Work(positions=40, head_rows=40, flops=500),
        rate=250.0,
        flags="batch_size=4",
        answers="equal",
    )


def test_a_row_says_time_and_arithmetic() -> None:
    cells = dict(zip(COLUMNS, comparison("tiny").cells(), strict=True))
    assert cells["time ×"] == "**2.5**"
    assert (cells["positions ×"], cells["head rows ×"], cells["products ×"]) == ("4.0", "20.0", "5.0")
    assert cells["spread"] == "2.0–3.0"
    assert cells["MFU: ours, peer"] == "40%, 80%"


def test_first_and_later_times_stand_side_by_side() -> None:
    cells = dict(zip(COLUMNS, comparison("tiny", later=True).cells(), strict=True))
    assert cells["layers"] == "top 1"
    assert (cells["ours (s)"], cells["peer (s)"]) == ("1.00 / 0.50", "2.50")
    assert cells["time ×"] == "**2.5** / **5.0**"
    assert cells["products ×"] == "5.0 / 25.0"
    assert cells["MFU: ours, peer"] == "40% / 16%, 80%"


def test_a_row_takes_its_place_in_the_document(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"Before.\n\n<!-- begin: it -->\n{render([])}<!-- end: it -->\n\nAfter.\n")
    cells, top = comparison("tiny").cells(), comparison("tiny", later=True).cells()
    unmeasured = ("H200", "tiny", "8", "all", "fp32", *["not yet measured"] * (len(COLUMNS) - len(ROW)))
    for row in (unmeasured, cells, comparison("other").cells(), top, cells):
        write("it", row, document=document)
    rows = (unmeasured, cells, comparison("other").cells(), top)
    expected = f"Before.\n\n<!-- begin: it -->\n{render(rows)}<!-- end: it -->\n\nAfter.\n"
    assert document.read_text() == expected
    with pytest.raises(UserError, match="no place for the table"):
        write("another", cells, document=document)
