"""Runs of the methods that give tasks parts of their own: limits in which they are another, and resume."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from forgetmenot.config import RunConfig, load_config
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods.shared.routing import Routing
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}

LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "corda of no inputs": ({"name": "corda", "examples": 0}, {"per_stage": "new"}),
    "freeze nothing, lora": ({"name": "freeze", "share": 0}, {}),
    "freeze nothing, full": ({"name": "freeze", "share": 0}, {"kind": "full"}),
    "moe-lora of one expert": ({"name": "moe-lora", "experts": 1}, {}),
    "inflora of no inputs": ({"name": "inflora", "examples": 0}, {"per_stage": "merge"}),
    "lora-null of no inputs": ({"name": "lora-null", "examples": 0}, {"per_stage": "new"}),
    "lora-null of no inputs, a learned": (
        {"name": "lora-null", "examples": 0, "down": "learned"},
        {"per_stage": "merge"},
    ),
    "o-lora without strength": ({"name": "o-lora", "strength": 0}, {"per_stage": "new"}),
    "progressive-prompts that all answer": (
        {"name": "progressive-prompts", "answers": "all"},
        {"kind": "prompt", "per_stage": "new"},
    ),
    "slao of the last task": ({"name": "slao", "power": 0, "orthogonal": False}, {}),
}
"""Methods at a strength that leaves plain sequential fine-tuning, and the adapter that both use."""

RESUMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "adapter-per-task": ("adapter-per-task", {}),
    "corda beside": ("corda", {}),
    "corda merged": ("corda", {"per_stage": "merge"}),
    "freeze lora": ("freeze", {}),
    "freeze full": ("freeze", {"kind": "full"}),
    "freeze by map, lora": ({"name": "freeze", "layers": "auto"}, {}),
    "freeze by map, full": ({"name": "freeze", "layers": "auto"}, {"kind": "full"}),
    "inflora beside": ("inflora", {}),
    "inflora merged": ("inflora", {"per_stage": "merge"}),
    "lora-null beside": ("lora-null", {}),
    "lora-null merged": ("lora-null", {"per_stage": "merge"}),
    "lora-null, a learned beside": ({"name": "lora-null", "down": "learned"}, {}),
    "lora-null, a learned merged": ({"name": "lora-null", "down": "learned"}, {"per_stage": "merge"}),
    "o-lora beside": ({"name": "o-lora", "strength": 30}, {}),
    "o-lora merged": ({"name": "o-lora", "strength": 30}, {"per_stage": "merge"}),
    "moe-lora": ("moe-lora", {}),
    "osf": ("osf", {}),
    "progressive-prompts": ("progressive-prompts", {}),
    "slao": ("slao", {}),
}


def _likelihoods(run: Run, stage: int) -> list[list[float]]:
    values: list[list[float]] = run.predictions(stage)["log_likelihoods"].map(list).tolist()
    return values


@pytest.mark.parametrize("limit", LIMITS)
def test_in_the_limit_it_is_sequential_to_the_bit(go: Go, limit: str) -> None:
    method, adapter = LIMITS[limit]
    one = go("one", {**SMALL, "method": method, "adapter": adapter})
    other = go("other", {**SMALL, "adapter": adapter})
    assert [_likelihoods(one, k) for k in range(4)] == [_likelihoods(other, k) for k in range(4)]


def test_the_first_stage_of_slao_is_plain_lora_to_the_bit(go: Go) -> None:
    plain, one = go("plain", SMALL), go("one", {**SMALL, "method": "slao"})
    assert _likelihoods(one, 1) == _likelihoods(plain, 1)
    assert _likelihoods(one, 2) != _likelihoods(plain, 2)


@pytest.mark.parametrize(
    "method", [{"name": "corda"}, {"name": "lora-null"}, {"name": "lora-null", "down": "learned"}]
)
def test_without_sources_the_first_stage_is_plain_lora_to_the_bit(
    go: Go, tiny: Mapping[str, Any], method: dict[str, Any]
) -> None:
    """There is nothing yet to keep clear of, as long as no sources say so; later there is."""
    plain = go("plain", {**SMALL, "adapter.per_stage": "new"})
    one = go("one", {**SMALL, "method": method})
    assert _likelihoods(one, 1) == _likelihoods(plain, 1)
    assert _likelihoods(one, 2) != _likelihoods(plain, 2)
    tasks = tiny["tasks"]
    sourced = go("sourced", {**SMALL, "method": {**method, "sources": "size"}, "tasks": tasks})
    assert len(sourced.results["stages"]) == 3
    assert _likelihoods(sourced, 1) != _likelihoods(plain, 1)


@pytest.mark.parametrize("case", RESUMED)
def test_what_goes_on_from_disk_ends_as_undisturbed(
    go: Go, tiny: Mapping[str, Any], same: Same, case: str
) -> None:
    method, adapter = RESUMED[case]
    settings = {**SMALL, "method": method, "adapter": adapter}
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    undisturbed = go("undisturbed", settings)
    same(undisturbed, go("grown", settings))
    sequential = go("sequential", {**SMALL, "adapter": load_config(None, settings).adapter.model_dump()})
    assert _likelihoods(undisturbed, 3) != _likelihoods(sequential, 3)


NEEDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing said": ({}, {"kind": "lora", "per_stage": "new"}),
    "something else said": ({"kind": "lora", "rank": 4}, {"kind": "lora", "rank": 4, "per_stage": "new"}),
    "another that it takes": ({"per_stage": "merge"}, {"kind": "lora", "per_stage": "merge"}),
}


@pytest.mark.parametrize("case", NEEDED)
@pytest.mark.parametrize("method", ["o-lora", {"name": "o-lora", "strength": 2}])
def test_adapter_settings_left_open_become_what_the_method_needs(case: str, method: Any) -> None:
    given, needed = NEEDED[case]
    config = load_config(None, {"tasks": "sst2", "method": method, "adapter": given})
    assert config.adapter == AdapterSettings(**needed)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    other = load_config(None, {"tasks": "sst2", "adapter": given})
    assert other.adapter == AdapterSettings(**given)


@pytest.mark.parametrize("values", [["sst2"], {"method": "o-lora", "adapter": "lora"}])
def test_what_is_no_config_is_refused_as_ever(values: Any) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(values)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"per_stage": "continue"}, "adapter.per_stage: this method works with new or merge, not continue."),
        ({"kind": "full"}, "adapter.kind: this method works with lora, not full."),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(
    go: Go, adapter: Any, said: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        go("refused", {"method": "o-lora", "adapter": adapter, "model": "no/such-model"})


@pytest.fixture
def task_known(tiny_tasks: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers make no mistake."""
    task_of = {
        f"Word: {json.loads(line)['word']}\nKind:": task
        for task, path in tiny_tasks.items()
        for line in path.with_name(f"{task}-score.jsonl").open()
    }

    def route(self: Routing, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        known = list(self.centroids)
        named = [task_of[learner.tokenizer.decode(prompt)] for prompt in prompts]
        return [task if task in known else known[0] for task in named] if known else None

    monkeypatch.setattr(Routing, "route", route)


@pytest.mark.usefixtures("task_known")
def test_one_adapter_per_task_and_no_routing_mistake_is_single(go: Go) -> None:
    routed = go("routed", {**SMALL, "method": "adapter-per-task"})
    single = go("single", {**SMALL, "method": "single"})
    for k, task in enumerate(single.results["tasks"], start=1):
        learned, kept = (run.predictions(stage) for run, stage in ((single, k), (routed, 3)))
        one, other = (rows[rows["task"] == task] for rows in (learned, kept))
        assert one["log_likelihoods"].map(list).tolist() == other["log_likelihoods"].map(list).tolist()
        assert one["example"].tolist() == other["example"].tolist()
    assert routed.summary()["forgetting"] <= 0


@pytest.mark.usefixtures("task_known")
def test_behind_the_prompts_of_its_own_stage_a_task_is_answered_as_it_was_learned(go: Go) -> None:
    run = go("routed", {**SMALL, "method": "progressive-prompts"})
    for k, task in enumerate(run.results["tasks"], start=1):
        learned, kept = (run.predictions(stage) for stage in (k, 3))
        one, other = (rows[rows["task"] == task] for rows in (learned, kept))
        assert one["log_likelihoods"].map(list).tolist() == other["log_likelihoods"].map(list).tolist()
    added = run.results["cost"]["parameters_added"]
    assert list(added.values()) == [10 * 32, 20 * 32, 30 * 32]
    assert not any((run.path / "stages" / "03-size" / name).exists() for name in ("adapter", "model"))


def test_a_prompt_is_no_part_of_a_model_that_could_be_exported(go: Go, tmp_path: Path) -> None:
    run = go("run", {**SMALL, "adapter": {"kind": "prompt", "tokens": 4}})
    _, reading = rescore(run.path)
    assert reading["matrix"] == run.results["matrix"]
    with pytest.raises(UserError, match=r"no single model answers like this stage.*prompt\.$"):
        export(run.path, "3", tmp_path / "out")


def test_a_routed_run_counts_who_answered_scores_anew_and_is_not_one_model(go: Go, tmp_path: Path) -> None:
    run = go("run", {**SMALL, "method": "adapter-per-task"})
    cells = {
        stage["name"]: json.loads((run.path / "stages" / stage["name"] / "scores.json").read_text())
        for stage in run.results["stages"]
    }
    assert all("routed" not in cell for cell in cells["00-base"])
    assert all(cell["routed"] == {"animal": 8} for cell in cells["01-animal"])
    assert all(sum(cell["routed"].values()) == cell["n"] == 8 for cell in cells["03-size"])
    assert len({part for cell in cells["03-size"] for part in cell["routed"]}) > 1
    _, reading = rescore(run.path)
    assert reading["matrix"] == run.results["matrix"]
    with pytest.raises(
        UserError, match=r"adapter-per-task, answers each prompt .* weights are in .*03-size\."
    ):
        export(run.path, "3", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(run.path, "0", tmp_path / "base")
