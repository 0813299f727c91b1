"""The example of docs/callback.md runs as it stands, and the page has the settings that there are."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.gate.callback import ForgettingCallback

DOCS = (Path(__file__).parents[2] / "docs" / "callback.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = DOCS.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(example, "docs/callback.md", "exec"), names)
    results = json.loads((tmp_path / "tickets" / "forgetting" / "results.json").read_text())
    assert results["tasks"] == ["qs-sentiment", "prose"]
    assert [stage["name"] for stage in results["stages"]][1:] == [f"0{k}-step-{4 * k}" for k in (1, 2, 3)]
    assert results["verdicts"]["base_end"]["prose"]["decision"] == "forgotten"
    said = capsys.readouterr().out
    assert "prose forgotten -" in said
    assert "best checkpoint: tickets/checkpoint-4\n" in said
    assert "page: tickets/forgetting/report.html" in said


def test_the_table_has_every_argument_with_its_default() -> None:
    table = DOCS.split("| argument | meaning |")[1].split("\n\n")[0]
    told = dict(re.findall(r"`(\w+)(?:=([^`]+))?`", _first_cells(table)))
    arguments = inspect.signature(ForgettingCallback.__init__).parameters
    assert told.keys() == arguments.keys() - {"self", "trainer"}
    for name, value in told.items():
        default = arguments[name].default
        assert value == ("" if default is inspect.Parameter.empty else repr(default).replace("'", '"'))


def _first_cells(table: str) -> str:
    return "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
