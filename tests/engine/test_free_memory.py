"""What is freed goes back to the system, and nothing small is kept between large tensors."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.engine.free_memory import give_back
from forgetmenot.evaluation.answer_log import _Parts


def test_free_memory_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Library:
        malloc_trim = kept.append

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    give_back()
    assert kept == [0]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back()


def test_scores_that_wait_to_be_written_are_numbers_and_no_tensors(tmp_path: Path) -> None:
    parts: Any = _Parts(tmp_path / "log", "key", {})
    parts.add(0, torch.tensor([-1.5, -2.0]))
    assert parts._waiting == {0: [-1.5, -2.0]}
