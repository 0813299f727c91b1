"""CONTRIBUTING's "add a method", followed outside this tree: a package found by its entry point."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot import UserError
from forgetmenot.methods import METHODS, known_methods

# What a user writes: a module, and the line by which it is found.
MODULE = '''\
"""A method of my own."""

from forgetmenot.methods import Method, Options


class PullToBase(Method):
    """Pull the trained weights back to their values at the start of the stage (L2-SP, Xuhong et al. 2018)."""

    class Options(Options):
        strength: float = 0.01
        """How strongly; 0 is `sequential`."""

    def begin(self, learner, stage):
        self.anchor = learner.snapshot()

    def penalty(self, learner):
        distance = sum((p - self.anchor[name]).square().sum() for name, p in learner.trainable().items())
        return self.options.strength * distance
'''
ENTRY_POINTS = "[forgetmenot.methods]\npull-to-base = my_methods:PullToBase\n"
METADATA = "Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n"
CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package on the path, as pip leaves it."""
    folder = tmp_path / "site-packages"
    (folder / "my_methods-1.0.dist-info").mkdir(parents=True)
    (folder / "my_methods.py").write_text(MODULE)
    (folder / "my_methods-1.0.dist-info" / "METADATA").write_text(METADATA)
    (folder / "my_methods-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


def test_it_is_as_short_as_promised_and_what_contributing_shows() -> None:
    assert len((MODULE + ENTRY_POINTS).splitlines()) < 40
    shown = MODULE.partition("class PullToBase")[2].strip()
    assert shown in CONTRIBUTING.read_text(encoding="utf-8")


@pytest.mark.usefixtures("installed")
def test_a_method_of_ones_own_runs_by_name_with_its_options(
    tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path
) -> None:
    assert "pull-to-base" in known_methods()
    assert "pull-to-base" not in METHODS
    (strength,) = forgetmenot.known("methods", "pull-to-base").entries
    assert (strength.about, strength.text) == ("a number; default 0.01", "How strongly; 0 is `sequential`.")

    def go(name: str, method: Any) -> list[list[float]]:
        run = forgetmenot.run(
            {
                "model": str(tiny_llama),
                "tasks": [str(tiny_tasks["animal"]), str(tiny_tasks["colour"])],
                "method": method,
                "training.limit": 16,
                "training.epochs": 3,
                "evaluation.limit": 8,
                "output": str(tmp_path / name),
            }
        )
        return run.matrix.to_numpy().tolist() + run.predictions(2)["log_likelihoods"].map(list).tolist()

    plain = go("plain", "sequential")
    assert go("limit", {"name": "pull-to-base", "strength": 0.0}) == plain
    assert go("pulled", {"name": "pull-to-base", "strength": 100.0}) != plain
    with pytest.raises(UserError, match=r"method\.stength.*'strength'"):
        go("wrong", {"name": "pull-to-base", "stength": 1.0})
