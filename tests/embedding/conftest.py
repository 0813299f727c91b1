"""A small learner, and the files of SentEval in small."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from forgetmenot.engine.learner import Learner
from tests.probes.conftest import SHARED, load

Lines = Sequence[tuple[str, str, str]]  # a sentence, another one, and the score as it stands in the file


@pytest.fixture
def learner(tiny_llama: Path) -> Learner:
    """The tiny Llama, with positions for 128 tokens."""
    return load(tiny_llama)


@pytest.fixture
def shared() -> Path:
    """The real data, where it lies beside the checkout."""
    if not (SHARED / "data" / "senteval").is_dir():
        pytest.skip("the files of SentEval are not beside this checkout")
    return SHARED


def write_sts(data_dir: Path, name: str, parts: Mapping[str, Lines]) -> Path:
    """Write one of STS12 to 16 under senteval/downstream/; returns its folder."""
    folder = data_dir / "senteval" / "downstream" / "STS" / f"{name.upper()}-en-test"
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in parts.items():
        pairs = "".join(f"{one}\t{other}\tfrom somewhere\tand there\n" for one, other, _ in lines)
        (folder / f"STS.input.{part}.txt").write_text(pairs, encoding="utf-8")
        scores = "".join(f"{score}\n" for *_, score in lines)
        (folder / f"STS.gs.{part}.txt").write_text(scores, encoding="utf-8")
    return folder
