"""A small learner, and data folders as people have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.engine.learner import Learner
from tests.endpoint import Server, serving

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def load(folder: Path) -> Learner:
    """A learner with the model of a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return Learner(model, AutoTokenizer.from_pretrained(folder), budget=64)


@pytest.fixture
def learner(tiny_llama: Path) -> Learner:
    """The tiny Llama, with positions for 128 tokens."""
    return load(tiny_llama)


@pytest.fixture
def broken(learner: Learner) -> Learner:
    """The same with a weight that is not a number."""
    norm = next(p for name, p in learner.model.named_parameters() if name.endswith("model.norm.weight"))
    norm.data[3] = float("nan")
    return learner


@pytest.fixture
def shared() -> Path:
    """The real data and the trained model of 4M parameters, where they lie beside the checkout."""
    if not (SHARED / "models" / "base-4m").is_dir():
        pytest.skip("the real data and the trained model are not beside this checkout")
    return SHARED


def without_names(parts: Any) -> list[Any]:
    """The values of parts."""
    return [part.value for part in parts]
