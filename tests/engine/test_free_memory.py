"""What is freed goes back to the system, and nothing small is kept between large tensors."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.engine.free_memory import give_back, given_back_at_once
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
    with given_back_at_once():
        pass


HEAP = """
import ctypes
from forgetmenot.engine.free_memory import given_back_at_once

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

def kept(size=20 * 2**20):  # MiB by which the heap is longer after so much was used and freed
    before, used = libc.sbrk(0), libc.malloc(size)
    libc.free(used)
    return (libc.sbrk(0) - before) / 2**20

libc.malloc_trim(0)
with given_back_at_once():
    first = kept()
print(first, kept())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_within_it_freed_memory_goes_back_at_once_and_afterwards_it_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    within, afterwards = map(float, done.stdout.split())
    assert within < 1
    assert afterwards > 19


def test_scores_that_wait_to_be_written_are_numbers_and_no_tensors(tmp_path: Path) -> None:
    parts: Any = _Parts(tmp_path / "log", "key", {})
    parts.add(0, torch.tensor([-1.5, -2.0]))
    assert parts._waiting == {0: [-1.5, -2.0]}
