"""The control of the router: with one template for all tasks, only their texts tell them apart."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.neutral_routing import WAYS, main


def test_tasks_with_the_same_texts_are_told_apart_by_their_prompts_alone(
    tiny_llama: Path,
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"word": f"word {k}", "kind": ("one", "other")[k % 2]} for k in range(40)]
    files = []
    for name, template in (("first", "Word: {{ word }}\nKind:"), ("second", "{{ word }} is of the sort")):
        choices = {label: label for label in ("one", "other")}
        prompt: dict[str, Any] = {"default": {"template": template, "choices": choices}}
        files.append(str(make_task(name, rows[:24], rows[24:], label="kind", prompts=prompt)))
    out = tmp_path / "routed.json"
    monkeypatch.setattr(sys, "argv", ["x", str(tiny_llama), str(out), "--tasks", ",".join(files)])
    main()
    found = json.loads(out.read_text())["ways"]
    assert found[WAYS[0]]["share"] == 1
    for way in WAYS[1:]:
        assert found[way]["share"] == 0.5, "the same texts cannot be told apart"
        assert found[way]["n"] == 32
    assert "one neutral template" in capsys.readouterr().out
