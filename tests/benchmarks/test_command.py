"""Rows are measured one after another: what is finished is kept, whatever becomes of the others."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from benchmarks import command
from benchmarks.table import COLUMNS, ROW, Cells
from benchmarks.workload import Row
from forgetmenot.errors import UserError


@dataclass(frozen=True)
class Fixed:
    row: Row

    def cells(self) -> Cells:
        return ("a machine", str(self.row), *[""] * (len(COLUMNS) - 2))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that were written into the document; nothing is read for them."""
    found: list[str] = []
    monkeypatch.setattr(command, "_bench", lambda workload, row, *_: row)
    monkeypatch.setattr(command, "write", lambda name, row, columns: found.append(row[1]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return found


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["a benchmark", *arguments])


def measure(failing: str, error: BaseException) -> Any:
    def measured(row: Any) -> Fixed:
        if str(row) == failing:
            raise error
        return Fixed(row)

    return measured


def test_a_row_that_fails_stops_no_other(
    written: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, "--write", "--rows", "small/0", "smollm2/0/top", "small/8")
    with pytest.raises(SystemExit) as ended:
        command.run_command("it", "A test.", measure("smollm2/0/top", UserError("no ratio")))
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert written == ["small/0", "small/8"]
    assert said.err == "it: smollm2/0/top: no ratio\n"
    assert said.out.count("| a machine |") == 2


def test_an_interruption_loses_no_finished_row(
    written: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, "--write", "--rows", "small/0", "small/8")
    with pytest.raises(KeyboardInterrupt):
        command.run_command("it", "A test.", measure("small/8", KeyboardInterrupt()))
    assert written == ["small/0"]
    assert "| small/0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "smolm2/0"], "there is no row 'smolm2/0'"),
        (["--repeats", "-1"], "-1 is no number of repeats"),
        (["--device", "cuda"], "this is not what the machine runs on"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured(
    arguments: list[str],
    said: str,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask(monkeypatch, *arguments)
    with pytest.raises(SystemExit):
        command.run_command("it", "A test.", measure("", KeyboardInterrupt()))
    assert said in capsys.readouterr().err


def test_the_first_cells_say_which_row_it_is() -> None:
    assert COLUMNS[: len(ROW)] == ROW == ("machine", "model", "shots", "layers", "dtype")
