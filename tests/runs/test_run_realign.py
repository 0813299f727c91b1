"""Readings that align the model anew on a few examples first: what they score, and that nothing stays."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

import forgetmenot
from forgetmenot.config import read_resolved
from forgetmenot.engine.training import fit
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import scored_tasks
from forgetmenot.methods import Method
from forgetmenot.record.assemble import NOT_LEARNED
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.loop import Loop
from forgetmenot.runs.plan import make_plan
from forgetmenot.runs.realign import BATCH, PASSES
from forgetmenot.runs.rescore import rescore
from forgetmenot.runs.saved import open_saved, take_up

Go = Callable[..., Run]
SMALL = {"training.limit": 24, "training.learning_rate": 0.01, "training.batch_size": 8}
AGAIN = {**SMALL, "evaluation.readings": [{"realign": 12}]}
KINDS: list[Mapping[str, Any]] = [
    {},
    {"adapter.kind": "full"},
    {"adapter.per_stage": "merge"},
    {"adapter.per_stage": "new"},
    {"adapter.kind": "prompt"},
    {"method": "ema"},
    {"training.precision": "bf16"},
    {"method": "osf", "adapter.kind": "full"},
    {"method": "freeze"},
    {"method": "moe-lora"},
]
SAVED: list[Mapping[str, Any]] = [
    {},
    {"adapter.per_stage": "merge"},
    {"adapter.per_stage": "new"},
    {"adapter.kind": "prompt"},
    {"adapter.kind": "full", "adapter.layers": {"top": 1}},
    {"method": "osf", "adapter.kind": "full"},
    {"method": "freeze"},
    {"method": "moe-lora"},
    {"method": "inflora", "adapter.per_stage": "new"},
]


def answers(found: Run, stage: str, reading: str = "") -> list[float]:
    """The log-likelihoods of a stage, one after another."""
    name = f"predictions-{reading}.parquet" if reading else "predictions.parquet"
    rows = parquet.read_table(found.path / "stages" / stage / name).to_pylist()
    return [value for row in rows for value in row["log_likelihoods"]]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())) or "lora")
def test_aligning_anew_changes_that_reading_and_nothing_else(kind: Mapping[str, Any], go: Go) -> None:
    plain, again = go("plain", {**SMALL, **kind}), go("again", {**AGAIN, **kind})
    for stage in ("00-base", "01-animal", "02-colour", "03-size"):
        assert answers(again, stage) == answers(plain, stage)
        helped = answers(again, stage, "realigned-12")
        assert np.isfinite(helped).all()
        assert helped != answers(again, stage)[: len(helped)]
    assert again.results["matrix"] == plain.results["matrix"]
    reading: Any = again.results["readings"][-1]
    assert reading["realigned"] == {"animal": 12, "colour": 12, "size": 12}
    assert [[cell is not None for cell in row] for row in reading["matrix"]] == [
        [True, True, True],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ], "of the base model, and from a task's own stage on"
    assert {(gap["stage"], gap["task"]) for gap in reading["missing"]} == {
        ("01-animal", "colour"),
        ("01-animal", "size"),
        ("02-colour", "size"),
    }
    assert {gap["reason"] for gap in reading["missing"]} == {NOT_LEARNED}
    assert set(reading["recovery"]) == {"animal", "colour"}
    assert set(reading["recovery"]["animal"]) == {"brought_back", "still_lost"}
    page = (again.path / "report.html").read_text()
    assert "Brought back at the end by" in page
    assert "training on 12 examples" in page
    assert f"colour after 01-animal, size after 01-animal, size after 02-colour: {NOT_LEARNED}" in page


def test_it_is_a_training_of_so_many_passes_from_the_stages_weights(go: Go) -> None:
    found = go("again", AGAIN)
    directory, config = RunDirectory(found.path), read_resolved(found.path / "config.yaml")
    plan, session = make_plan(config), open_saved(RunDirectory(found.path), config)
    learner = session.learner
    (one, *_) = scored_tasks(config.asking, plan.readings[1], plan.scored, learner, session.max_length)
    session.examine(one.first_sequences())
    take_up(directory, session, plan.method, "03-size", trainable=True)
    from accelerate import Accelerator

    fit(
        learner,
        one.realign,
        Method(),
        config.training.model_copy(update={"batch_size": BATCH}),
        accelerator=Accelerator(cpu=True),
        epochs=PASSES,
        learning_rate=0.01,
        seed=config.seed,
        on_step=lambda step: None,
    )
    rows = evaluate(learner, plan.method, one).log_likelihoods
    assert rows is not None
    wanted = [value for row in rows for value in row or ()]
    kept = answers(found, "03-size", "realigned-12")[: len(wanted)]
    assert np.allclose(kept, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", SAVED, ids=lambda kind: "-".join(map(str, kind.values())) or "lora")
def test_saved_stages_are_aligned_anew_as_in_the_run(kind: Mapping[str, Any], go: Go) -> None:
    """What learns does not depend on what the method froze in the process that trained the stage."""
    found = go("again", {**AGAIN, **kind})
    _, saved = rescore(found.path, settings={"realign": 12})
    written: dict[str, Any] = json.loads(json.dumps(saved))
    _, there = found.results["readings"]
    assert {key: written[key] for key in there} == there


@pytest.mark.parametrize("kind", [{"adapter.kind": "prompt"}, {"method": "osf", "adapter.kind": "full"}])
def test_a_run_that_is_taken_up_before_its_scores_goes_on_from_its_stage(
    kind: Mapping[str, Any], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go("whole", {**AGAIN, **kind})
    score = Loop._score

    def cut(self: Loop, folder: Path, name: str, asked: Any) -> float:
        if name == "02-colour":
            raise KeyboardInterrupt
        return score(self, folder, name, asked)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_score", cut)
        with pytest.raises(KeyboardInterrupt):
            go("cut", {**AGAIN, **kind})
    resumed = go("cut", {**AGAIN, **kind})
    for stage in ("02-colour", "03-size"):
        for reading in ("", "realigned-12"):
            assert answers(resumed, stage, reading) == answers(whole, stage, reading)


def test_demonstrations_and_prompts_are_held_against_the_end_too(go: Go) -> None:
    found = go("helped", {**SMALL, "evaluation.readings": [{"demonstrations": 2}, {"prompt": "terse"}]})
    shown, terse = (one["recovery"]["animal"] for one in found.results["readings"][1:])
    matrix: Any = found.results["matrix"]
    for reading, both in zip(found.results["readings"][1:], (shown, terse), strict=True):
        end = reading["matrix"][-1][0]
        assert both["brought_back"]["difference"] == pytest.approx(end - matrix[-1][0])
        assert both["still_lost"]["difference"] == pytest.approx(end - matrix[1][0])
    page = (found.path / "report.html").read_text()
    assert "2 demonstrations" in page
    assert "the prompt terse" in page


def test_a_method_of_several_parts_and_a_task_without_examples_are_refused(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="realign: the method adapter-per-task answers each prompt by a part"):
        go("routed", {**AGAIN, "method": "adapter-per-task"})
    routed = go("plain-routed", {**SMALL, "method": "adapter-per-task"})
    with pytest.raises(UserError, match="no single model can be aligned"):
        rescore(routed.path, settings={"realign": 4})


def test_two_processes_find_what_one_finds(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    one: Any = go("one", AGAIN).results["readings"][-1]["matrix"]
    config = {**tiny, **AGAIN, "output": str(tmp_path / "two")}
    first, second = in_processes(lambda: forgetmenot.run(config).results["readings"][-1]["matrix"])
    assert first == second
    assert np.allclose(np.array(first, dtype=float), np.array(one, dtype=float), atol=0.1, equal_nan=True)
