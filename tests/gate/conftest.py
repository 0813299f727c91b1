"""What is watched in the trainings of these tests."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def watched(tiny_tasks: dict[str, Path]) -> list[str]:
    """Two choices: animal and size."""
    return [str(tiny_tasks["animal"]), str(tiny_tasks["size"])]


@pytest.fixture
def texts(make_task: Callable[..., Path]) -> str:
    """Texts that great steps on other ones make much less likely."""
    rows = [{"text": f"{'the ship and the tower stand by the hill ' * 2}{k}"} for k in range(30)]
    return str(make_task("prose", score=rows, text="text", metric="loss"))
