"""Training that diverges stops, and a model whose numbers are none has no score."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetmenot.engine import training
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods.sequential import Sequential
from forgetmenot.record.assemble import NOT_LEARNED
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.conclusions import conclusions
from forgetmenot.report.comparison.runs import read_run
from forgetmenot.runs.api import Run
from forgetmenot.runs.rescore import rescore
from tests.conftest import write_task

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 8, "training.limit": 16, "adapter": {"kind": "full"}}
PAIRS = [{"word": f"w{k}", "good": "yes", "bad": "no"} for k in range(8)]
REPLIES = [{"word": f"w{k}", "reply": "yes"} for k in range(8)]
ASK = {"prompts": {"default": {"template": "Word: {{ word }}\nReply:"}}}


def test_training_stops_where_it_diverges_and_the_stages_before_stay(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    go("one", {**SMALL, "tasks": tiny["tasks"][:1]})
    stages = {"training.learning_rate": 1e30, "training.warmup_ratio": 0}
    with pytest.raises(UserError, match=r"^Stage 01-animal: training stopped at step 2 of 2, where the loss"):
        go("other", {**SMALL, **stages})
    assert sorted(path.name for path in (tmp_path / "other/stages").glob("0*")) == ["00-base"]


def test_a_gradient_that_is_not_finite_stops_it_before_the_step(
    go: Go, tiny: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Sequential,
        "gradients",
        lambda self, learner: [g.fill_(torch.inf) for g in learner.gathered().values()],
    )
    with pytest.raises(UserError, match=r"at step 1 of 2, where the gradient's norm is (inf|nan)"):
        go("one", {**SMALL, "tasks": tiny["tasks"][:1]})


@pytest.fixture
def broken(go: Go, tiny: Mapping[str, Any], tmp_path: Path) -> Run:
    """A run of a choice, a pair and a written answer whose last stage is not a number."""
    pair = write_task(tmp_path / "t", "pair", PAIRS, PAIRS, chosen="good", rejected="bad", **ASK)
    reply = write_task(
        tmp_path / "t",
        "reply",
        REPLIES,
        REPLIES,
        target="reply",
        metric="exact_match",
        **ASK,
        generation={"max_new_tokens": 3},
    )
    tasks = [tiny["tasks"][0], str(pair), str(reply)]
    settings = {**SMALL, "tasks": tasks, "training.limit": 8, "training.batch_size": 8}
    return go("broken", {**settings, "training.learning_rate": 1e-3})


def spoil(run: Run) -> None:
    """Make the weights of the last stage nan, as a step into nowhere leaves them, and score it again."""
    (file,) = (run.path / "stages/03-reply/model").glob("*.safetensors")
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("norm.weight"))
    weights[name][3] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    (run.path / "stages/03-reply/seal.json").unlink()


def test_every_kind_of_cell_is_null_with_its_reason(broken: Run) -> None:
    spoil(broken)
    _, read = rescore(broken.path)
    assert read["matrix"][3] == [None, None, None]
    assert all(value is not None for row in read["matrix"][:3] for value in row)
    assert [(gap["stage"], gap["task"]) for gap in read["missing"]] == [
        ("03-reply", task) for task in ("animal", "pair", "reply")
    ]
    assert {gap["reason"] for gap in read["missing"]} == {
        "The model's numbers are not finite (nan or infinite) on 8 of 8 examples: it has diverged in "
        "training, or its weights are broken."
    }
    assert read["intervals"][3] == [None, None, None]


def test_a_comparison_leaves_such_a_run_out_and_names_it(
    go: Go, tiny: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a run may lead into nowhere, and no later one sees it."""
    settings = {**SMALL, "tasks": tiny["tasks"][:1]}

    def into_nowhere(self: Any, learner: Learner) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 2:
            for value in learner.trainable().values():
                value.data.mul_(torch.nan)

    well = go("well", settings)
    monkeypatch.setattr(Sequential, "stepped", into_nowhere)
    nowhere = go("nowhere", settings)
    assert nowhere.results["matrix"][1] == [None]
    runs = [read_run(run.path, {"method": run.path.name}) for run in (well, nowhere)]
    comparison = Comparison("both", runs)
    assert [run.name for run in comparison.finished] == ["well"]
    (sentence,) = comparison.failures
    assert sentence.startswith("animal has no score after 01-animal. The model's numbers are not finite")
    said = " ".join(conclusions(comparison))
    assert "ends highest" not in said
    assert "1 of 2 runs failed" in said


def test_a_diverged_stage_is_not_aligned_anew_and_has_no_score(broken: Run) -> None:
    spoil(broken)
    _, found = rescore(broken.path, settings={"realign": 4})
    *before, last = found["matrix"]
    assert all(value is not None for row in before for value in row[:1])
    assert last == [None] * len(last)
    reasons = {gap["reason"] for gap in found["missing"]} - {NOT_LEARNED}
    assert reasons
    assert all("not finite" in reason for reason in reasons), reasons


def test_an_alignment_that_diverges_empties_its_cells_and_ends_nothing(
    broken: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = training.fit

    def steep(*arguments: Any, **named: Any) -> None:
        fit(*arguments, **{**named, "learning_rate": 1e38})

    monkeypatch.setattr(training, "fit", steep)
    _, found = rescore(broken.path, settings={"realign": 4})
    assert found["matrix"] == [[None] * len(found["tasks"])] * len(found["stages"])
    assert all("not finite" in one["reason"] for one in found["missing"] if one["reason"] != NOT_LEARNED)
    assert rescore(broken.path)[1]["matrix"] == broken.results["matrix"]
