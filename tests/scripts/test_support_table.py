"""The support table is of the methods and the ways to run that there are, and says what happens."""

import re
from pathlib import Path

import pytest

from forgetmenot.methods import METHODS
from scripts import support_table
from scripts.support_table import MODES, PAGE, attempt, in_two_processes, page


def test_the_page_has_every_method_and_every_mode() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert f"| method | {' | '.join(MODES)} |" in lines
    rows = [re.match(r"\| `(.+?)` \|", line) for line in lines]
    assert [row[1] for row in rows if row] == list(METHODS)


def test_a_refusal_is_a_note_that_equal_ones_share() -> None:
    refused: dict[tuple[str, str], str | None] = {("a", mode): None for mode in MODES}
    refused |= {("b", mode): "Not b." for mode in MODES}
    lines = page(refused, ["a", "b"]).splitlines()
    assert f"| `a` |{' yes |' * len(MODES)}" in lines
    assert f"| `b` |{' (1) |' * len(MODES)}" in lines
    assert "1. Not b." in lines
    assert "`replay`" in lines[-1]
    assert "`ewc`" not in lines[-1]


def test_two_processes_refuse_once(tmp_path: Path) -> None:
    status, complaint = in_two_processes(["run", "--tasks", "none", "--output", str(tmp_path / "run")])
    assert status == 2
    assert complaint.count("forgetmenot: ") == 1


@pytest.mark.slow
def test_what_the_page_says_of_sequential_is_what_happens() -> None:
    refused = {("sequential", mode): attempt("sequential", mode) for mode in MODES}
    (row,) = [line for line in page(refused, ["sequential"]).splitlines() if line.startswith("| `seq")]
    assert row in PAGE.read_text(encoding="utf-8").splitlines()


def test_what_is_not_allowed_is_a_reason_and_a_bug_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODES, "wrong", ("--set", "adapter.rank=none"))
    reason = attempt("sequential", "wrong")
    assert reason is not None
    assert reason.startswith("adapter.rank: ")

    def broken(_: object) -> None:
        raise SystemExit(70)

    monkeypatch.setattr(support_table, "main", broken)
    with pytest.raises(RuntimeError, match="sequential with LoRA ended with 70"):
        attempt("sequential", "LoRA")
