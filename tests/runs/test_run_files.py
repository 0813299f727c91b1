"""What a run leaves on disk, and that it is what others rely on."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors import safe_open

from forgetmenot.config import RunConfig
from forgetmenot.runs.api import Run
from tests.running import Go

TASKS = ["animal", "colour", "size"]
STAGES = ["00-base", "01-animal", "02-colour", "03-size"]


def _json(run: Run, name: str) -> Any:
    return json.loads((run.path / name).read_text(encoding="utf-8"))


def _events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def test_the_directory_holds_what_the_contract_names(finished: Run) -> None:
    there = {path.name for path in finished.path.iterdir() if not path.name.startswith(".")}
    assert there == {
        *("config.yaml", "environment.json", "events.jsonl", "timing.json"),
        *("stages", "results.json", "report.html", "seal.json"),
    }
    assert sorted(path.name for path in (finished.path / "stages").iterdir()) == STAGES
    for name in STAGES[1:]:
        stage = finished.path / "stages" / name
        assert {path.name for path in stage.iterdir()} >= {
            *("scores.json", "predictions.parquet", "training.jsonl", "adapter"),
        }
        with safe_open(stage / "adapter" / "adapter_model.safetensors", "pt") as weights:
            assert weights.keys()
    assert not (finished.path / "stages" / "00-base" / "training.jsonl").exists()


@pytest.mark.parametrize(
    "settings",
    [{"method": "ewc"}, {"adapter.kind": "full", "method": "ema"}, {"adapter.kind": "prompt"}],
    ids=["lora", "full", "prompt"],
)
def test_all_that_a_run_leaves_may_be_read_by_whom_the_umask_allows_it(
    go: Go, settings: Mapping[str, Any], tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        run = go("one", {**settings, "evaluation.limit": 4, "training.limit": 8})
        if settings.get("adapter.kind") != "prompt":
            run.export(tmp_path / "out")
    finally:
        os.umask(before)
    there = [*run.path.rglob("*"), *(tmp_path / "out").rglob("*")]
    assert len([path for path in there if path.suffix == ".safetensors"]) >= 3
    for path in there:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path


def test_results_have_the_keys_of_the_contract(finished: Run) -> None:
    results = finished.results
    assert results["version"] == 1
    assert results["tasks"] == TASKS
    assert [stage["name"] for stage in results["stages"]] == STAGES
    assert [stage["trains_on"] for stage in results["stages"]] == [[], ["animal"], ["colour"], ["size"]]
    assert results["metrics"] == dict.fromkeys(TASKS, "accuracy")
    assert {
        *("average_performance", "backward_transfer", "forward_transfer", "forgetting"),
        *("learning_accuracy", "haque"),
    } <= results["summary"].keys()
    assert {"intervals", "readings", "probes", "cost"} <= results.keys()
    (reading,) = results["readings"]
    assert {
        *("metric", "version", "prompt", "prompt_hash", "scoring", "matrix", "n", "intervals", "missing"),
    } <= reading.keys()
    assert reading["matrix"] == results["matrix"]
    assert reading["n"] == dict.fromkeys(TASKS, 24)
    assert reading["missing"] == []


def test_the_matrix_is_the_share_of_right_predictions(finished: Run) -> None:
    assert finished.matrix.shape == (4, 3)
    for i in range(4):
        rows = finished.predictions(i)
        for j, task in enumerate(TASKS):
            mine = rows[rows["task"] == task]
            assert len(mine) == 24
            assert finished.results["matrix"][i][j] == (mine["gold"] == mine["predicted"]).mean()


def test_the_likeliest_candidate_is_predicted(finished: Run, tiny_tasks: Mapping[str, Path]) -> None:
    labels = {
        task: list(yaml.safe_load(path.read_text())["prompts"]["default"]["choices"])
        for task, path in tiny_tasks.items()
    }
    for row in finished.predictions(2).itertuples():
        task, values = str(row.task), list(pd.Series(row.log_likelihoods))
        assert len(values) == len(labels[task])
        assert all(math.isfinite(value) and value < 0 for value in values)
        assert labels[task][values.index(max(values))] == row.predicted


def test_training_changes_what_is_predicted(finished: Run) -> None:
    before, after = finished.predictions(0), finished.predictions(3)
    assert before["example"].tolist() == after["example"].tolist()
    assert before["log_likelihoods"].map(list).tolist() != after["log_likelihoods"].map(list).tolist()


def test_scores_of_a_stage_are_its_row(finished: Run) -> None:
    for name, row in zip(STAGES, finished.results["matrix"], strict=True):
        cells = _json(finished, f"stages/{name}/scores.json")
        assert [cell["task"] for cell in cells] == TASKS
        assert [cell["scores"]["accuracy"] for cell in cells] == row


def test_every_step_is_logged(finished: Run) -> None:
    lines = (finished.path / "stages/02-colour/training.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]  # 36 examples: a tenth of 40 is `select`
    assert sum(step["examples"] for step in steps) == 36
    assert all(step["loss"] > 0 and step["gradient_norm"] > 0 for step in steps)


def test_config_is_resolved(finished: Run) -> None:
    written = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert RunConfig.model_validate(written).directory == finished.path
    assert written["adapter"]["kind"] == "lora"
    assert written["training"]["batch_size"] == 8


def test_environment_tells_what_the_numbers_depend_on(finished: Run) -> None:
    environment = _json(finished, "environment.json")
    identity = environment["identity"]
    assert identity["layout"] == identity["training_layout"] == "trie"
    assert identity["threads"] == 1
    assert identity["dtype"] == "float32"
    assert identity["precision"] == "fp32"
    assert identity["stages"] == {"01-animal": ["animal"], "02-colour": ["colour"], "03-size": ["size"]}
    assert identity["tasks"].keys() == identity["prompts"].keys() == set(TASKS)
    assert {*("model_revision", "attention", "pack_budget", "max_length", "learning_rate")} <= identity.keys()
    assert {"torch", "transformers", "peft", "forgetmenot"} <= environment["versions"].keys()
    assert environment["dropout_set_to_0"] == {}


def test_times_are_in_timing_alone(finished: Run) -> None:
    timing = _json(finished, "timing.json")
    assert len(timing["train_s"]) == len(timing["eval_s"]) == 4
    assert timing["train_s"][0] == 0.0
    assert all(seconds > 0 for seconds in [*timing["train_s"][1:], *timing["eval_s"]])
    assert not {key for key in _keys(finished.results) if "time" in key or key.endswith("_s")}


def _keys(content: Any) -> set[str]:
    if isinstance(content, dict):
        return set(content).union(*map(_keys, content.values()))
    return set().union(*map(_keys, content)) if isinstance(content, list) else set()


def test_events_tell_the_story_in_order(finished: Run) -> None:
    told = [(event["event"], event.get("stage")) for event in _events(finished)]
    stages = [(kind, name) for name in STAGES[1:] for kind in ("began", "training", "committed")]
    assert told == [("committed", "00-base"), *stages, ("finished", None)]


def test_sharing_heads_costs_fewer_positions(finished: Run) -> None:
    positions = finished.results["cost"]["positions"]
    assert positions.keys() == set(STAGES)
    for name, cost in positions.items():
        parts = ["scoring"] if name == "00-base" else ["scoring", "training"]
        assert sorted(cost) == parts
        for part in parts:
            assert 0 < cost[part]["computed"] < cost[part]["without_sharing"]


def test_what_is_kept_and_added_is_counted(finished: Run) -> None:
    cost = finished.results["cost"]
    assert cost["memory_kept"] == dict.fromkeys(STAGES[1:], 0)
    assert cost["parameters_added"].keys() == set(STAGES[1:])
    assert len(set(cost["parameters_added"].values())) == 1  # one adapter goes on
    assert cost["past_data"] is False


@pytest.mark.parametrize("name", ["colour", "size"])
def test_the_report_names_every_task(finished: Run, name: str) -> None:
    assert name in (finished.path / "report.html").read_text(encoding="utf-8")
