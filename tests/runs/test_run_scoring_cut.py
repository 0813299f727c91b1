"""A stage that is cut off after its training: that is not done again, nor is a score another part's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot.runs import directory, loop
from forgetmenot.runs.api import Run
from tests.runs.test_run_midway import SHORT, CutError, assert_the_same, trained_steps

Config = Mapping[str, Any]
Same = Callable[[Run, Run], None]


def cut_before(config: Config, owner: Any, name: str, within: str) -> None:
    """Run until `owner.name` would be called with the text `within` in its first argument."""
    original = getattr(owner, name)

    def mortal(first: Any, *others: Any, **named: Any) -> Any:
        if within in str(first):
            raise CutError
        return original(first, *others, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, mortal)
        with pytest.raises(CutError):
            forgetmenot.run(config)


MOMENTS = {
    "before its answers are written": (loop, "write_predictions"),
    "before its scores are written": (Path, "write_text"),
    "before it is sealed": (directory, "write_seal"),
    "before its seal is on the disk": (directory, "sync"),
    "before its folder appears": (directory, "put_aside"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_trained_is_not_trained_again(
    tiny: Config, tmp_path: Path, same: Same, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config = {**tiny, **SHORT, "training.save_every": None, "tasks": tiny["tasks"][:1]}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    within = {"write_text": "01-animal.writing/scores.json", "sync": "01-animal.writing/seal.json"}
    owner, name = MOMENTS[moment]
    cut_before(config, owner, name, within.get(name, "01-animal"))
    done = trained_steps(monkeypatch)
    resumed = forgetmenot.run(config)
    assert done == []
    assert_the_same(undisturbed, resumed, same)


def test_no_part_takes_the_kept_scores_of_another(tiny: Config, tmp_path: Path, same: Same) -> None:
    """Each adapter is asked the same content-free example: the packs are equal, and the answers are not."""
    config = {**tiny, **SHORT, "tasks": tiny["tasks"][:2], "method": "adapter-per-task"}
    config |= {"evaluation.calibration": "contextual", "training.learning_rate": 0.01}
    undisturbed = forgetmenot.run({**config, "output": str(tmp_path / "undisturbed")})
    config["output"] = str(tmp_path / "cut")
    cut_before(config, loop, "write_predictions", "02-colour")
    assert_the_same(undisturbed, forgetmenot.run(config), same)
