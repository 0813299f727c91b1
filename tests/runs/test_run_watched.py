"""Benchmarks as columns of a run: scored after each stage, kept, resumed, routed and asked anew."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore
from tests.evaluation.test_benchmarks import CHOICES, KINDS, NAMED, rows, theirs

pytest.importorskip("lm_eval")

Go = Callable[..., Run]
Make = Callable[..., Path]
Same = Callable[[Run, Run], None]
Config = Mapping[str, Any]

SMALL = {"training.limit": 16, "evaluation.limit": 12, "training.learning_rate": 0.01}


@pytest.fixture
def watched(make_benchmark: Make) -> list[str]:
    """A choice and written answers, by files of lm-eval's kind."""
    choice = make_benchmark("choice", rows(20), **CHOICES)
    return [str(choice), str(make_benchmark("written", rows(20), **KINDS["written"]))]


def test_they_are_columns_like_any_other(go: Go, watched: list[str], tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    run = go("one", {**SMALL, "evaluation.also_score": watched})
    results = run.results
    assert results["tasks"] == ["animal", "colour", "size", "choice", "written"]
    assert [results["metrics"][name] for name in ("choice", "written")] == ["accuracy", "exact_match"]
    headline = results["readings"][0]
    assert headline["n"] == dict.fromkeys(results["tasks"], 12)
    assert headline["prompt"]["choice"].startswith("lm-eval ")
    assert headline["prompt"]["choice"].endswith(", 0 shots")
    gold = run.predictions(0).query("task == 'choice'")["gold"]
    assert results["majority"]["choice"] == gold.value_counts().max() / 12
    assert headline["generation"]["written"]["max_new_tokens"] == 6
    assert results["asked_again"]["written"]["n"] == 12
    assert all(None not in row for row in results["intervals"]["matrix"])
    assert len({row[3] for row in results["matrix"]}) > 1, "training changes what is measured"
    table = run.predictions(2)
    answers = table[table["task"] == "choice"].set_index("example")
    assert answers["prompt_text"].str.startswith("prompt: word ").all()
    right = answers["predicted"] == answers["gold"]
    assert right.mean() == results["matrix"][2][3]
    export(run.path, "2", tmp_path / "stage")
    model = HFLM(pretrained=str(tmp_path / "stage"), device="cpu", dtype="float32")
    alone = theirs(model, watched[0], "acc")
    assert {name: bool(alone[name]["acc"]) for name in right.index} == right.to_dict()
    assert "choice" in (run.path / "report.html").read_text()


def test_a_run_goes_on_as_undisturbed(go: Go, watched: list[str], tiny: Config, same: Same) -> None:
    settings = {**SMALL, "evaluation.also_score": watched}
    whole = go("whole", settings)
    wanted = go("broken", settings).path
    for stage in ("02-colour", "03-size"):
        shutil.rmtree(wanted / "stages" / stage)
    (wanted / "results.json").unlink()
    same(go("broken", settings), whole)
    go("longer", {**settings, "tasks": tiny["tasks"][:2]})
    assert go("longer", settings).results == whole.results


def test_a_saved_run_is_asked_anew(go: Go, watched: list[str]) -> None:
    plain = go("plain", SMALL)
    beside = go("beside", {**SMALL, "evaluation.also_score": watched})
    _, found = rescore(plain.path, watched)
    assert found["tasks"] == ["choice", "written"]
    assert found["matrix"] == [row[3:] for row in beside.results["matrix"]]
    assert found["prompt_hash"] == {
        name: beside.results["readings"][0]["prompt_hash"][name] for name in ("choice", "written")
    }
    with pytest.raises(UserError, match=r"reading: lm-eval asks its tasks in its own way alone"):
        rescore(plain.path, watched, "terse")


def test_other_readings_leave_them_out(go: Go, watched: list[str]) -> None:
    run = go(
        "one", {**SMALL, "evaluation.also_score": watched, "evaluation.prompts": ["terse"], "prompt": "terse"}
    )
    assert [row[3:] for row in run.results["readings"][1]["matrix"]] == [[None, None]] * 4


def test_each_question_is_answered_by_its_adapter(go: Go, watched: list[str]) -> None:
    routed = go("one", {**SMALL, "evaluation.also_score": watched, "method": "adapter-per-task"})
    assert all(None not in row for row in routed.results["matrix"])


def test_layers_that_never_learn_are_computed_once(
    go: Go, watched: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    upper = {**SMALL, "evaluation.also_score": watched[:1], "adapter.layers": {"top": 1}}
    whole = go("whole", {**upper, "adapter.frozen_cache_gb": 0})
    kept = go("kept", upper)
    for stage in range(4):
        one, other = (np.concatenate([*run.predictions(stage)["log_likelihoods"]]) for run in (whole, kept))
        assert np.abs(one - other).max() < 1e-3


def test_a_preview_counts_them(go: Go, watched: list[str], tiny: Config) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:1], "evaluation.also_score": watched})
    config = {
        **tiny,
        **SMALL,
        "tasks": tiny["tasks"][:1],
        "evaluation.also_score": watched,
        "output": "nowhere",
    }
    expected = forgetmenot.preview(config)
    work = {one.task: one for one in expected.scoring}
    assert (work["choice"].examples, work["written"].computed) == (12, 0)
    assert work["choice"].seconds > 0
    assert (
        work["animal"].computed + work["choice"].computed
        <= run.results["cost"]["positions"]["00-base"]["scoring"]["computed"]
    )


def test_two_processes_score_them_as_one(
    go: Go, watched: list[str], tiny: Config, tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    settings = {**SMALL, "tasks": tiny["tasks"][:1], "evaluation.also_score": watched}
    alone = go("alone", settings)
    config = {**tiny, **settings, "output": str(tmp_path / "two")}
    first, second = in_processes(lambda: forgetmenot.run(config).results)
    assert first == second
    assert first["matrix"][0] == alone.results["matrix"][0]


def test_what_does_not_fit_is_said_before_anything_runs(
    go: Go, watched: list[str], make_benchmark: Make, tiny: Config
) -> None:
    def refused(says: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=says):
            go("one", {**SMALL, **settings})

    only = "is a task of lm-evaluation-harness, which is only scored, never trained"
    refused(f"tasks: 'arc_easy' {only}", tasks=["arc_easy"])
    refused(f"tasks: '.*choice.yaml' {only}", tasks=[watched[0]])
    also = {"evaluation.also_score": watched}
    refused("split: select: .*choice.yaml is a task of lm-eval", **{"evaluation.split": "select"}, **also)
    refused("prompt: 'choice' has lm-eval's prompt and shots", prompt={"choice": "terse"}, **also)
    refused("demonstrations.count: 'choice' has", **{"demonstrations.count": {"choice": 2}}, **also)
    refused("'choice' is named twice", **{"evaluation.also_score": [watched[0], watched[0]]})
    twin = str(make_benchmark("animal", rows(4), **NAMED))
    refused("'animal' is named twice", **{"evaluation.also_score": [twin]})
    long = str(
        make_benchmark("long", rows(4), **{**KINDS["written"], "generation_kwargs": {"max_gen_toks": 999}})
    )
    refused(
        "Task long: this task lets the model write 999 tokens",
        **{"evaluation.also_score": [long]},
    )
