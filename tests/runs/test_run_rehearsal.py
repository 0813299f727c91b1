"""Runs of the methods that remember: the limits in which they are another method, and going on from disk."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}

LIMITS: dict[str, dict[str, Any]] = {
    "replay of nothing": {"name": "replay", "share": 0, "memory": 1.0},
    "replay of nothing on days": {"name": "replay", "share": 0, "memory": 1.0, "schedule": "model-time"},
    "replay without memory": {"name": "replay", "share": 0.5, "memory": 0},
    "der++ of nothing": {"name": "der++", "share": 0, "memory": 1.0},
    "a-gem without memory": {"name": "agem", "memory": 0},
    "gem without memory": {"name": "gem", "memory": 0},
    "ogd without memory": {"name": "ogd", "memory": 0},
    "lamol of nothing": {"name": "lamol", "share": 0, "strength": 0},
    "ssr without memory": {"name": "ssr", "memory": 0},
    "self-guide-replay without memory": {"name": "self-guide-replay", "memory": 0},
    "on-policy-replay of nothing": {"name": "on-policy-replay", "share": 0},
}
"""Methods at a strength that leaves plain sequential fine-tuning."""

RESUMED: dict[str, dict[str, Any]] = {
    "replay at random": {"name": "replay", "share": 0.25, "memory": 4},
    "replay by herding": {"name": "replay", "share": 0.25, "memory": 0.5, "keep": "herding"},
    "replay of the most forgotten": {
        "name": "replay",
        "share": 0.25,
        "memory": 1.0,
        "draw": "most-forgotten",
    },
    "replay in model time": {
        "name": "replay",
        "share": 0.25,
        "memory": 1.0,
        "schedule": "model-time",
        "day": 1,
    },
    "der++": {"name": "der++", "share": 0.25, "memory": 0.5, "keep": "class-balanced"},
    "der++ on days": {"name": "der++", "share": 0.25, "memory": 1.0, "schedule": "increasing", "day": 1},
    "a-gem": {"name": "agem", "memory": 1.0, "batch": 4},
    "gem": {"name": "gem", "memory": 1.0, "batch": 4, "margin": 0.5},
    "ogd": {"name": "ogd", "memory": 4},
    "gpm with adapters kept": {"name": "gpm", "examples": 8},
    "gpm with adapters merged": {"name": "gpm", "examples": 8},
    "gpm full": {"name": "gpm", "examples": 8},
    "a-gem full": {"name": "agem", "memory": 1.0, "batch": 4},
    "on-policy-replay": {"name": "on-policy-replay", "share": 0.25, "memory": 1.0, "temperature": 1.0},
    "ssr on days": {"name": "ssr", "memory": 4, "schedule": "increasing", "day": 1},
}
ADAPTERS = {"kept": {"per_stage": "new"}, "merged": {"per_stage": "merge"}, "full": {"kind": "full"}}
"""By the last word of a case."""

FAR = {"evaluation.limit": 8, "training.limit": 36, "training.learning_rate": 0.03}
"""Steps so long that tasks get into each other's way."""


def _likelihoods(run: Run) -> list[list[float]]:
    rows = [run.predictions(stage)["log_likelihoods"].map(list) for stage in range(4)]
    return [list(row) for stage in rows for row in stage]


@pytest.fixture(scope="module")
def sequential(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return forgetmenot.run({**tiny, **SMALL, "output": str(tmp_path_factory.mktemp("runs") / "plain")})


@pytest.mark.parametrize("limit", LIMITS)
def test_in_the_limit_it_is_sequential_to_the_bit(go: Go, sequential: Run, limit: str) -> None:
    run = go("limit", {**SMALL, "method": LIMITS[limit]})
    assert _likelihoods(run) == _likelihoods(sequential)


@pytest.mark.parametrize("adapter", [{"per_stage": "merge"}, {"kind": "full"}], ids=["lora", "full"])
def test_gpm_without_threshold_is_sequential_to_the_bit(go: Go, adapter: dict[str, str]) -> None:
    one = go("one", {**SMALL, "method": {"name": "gpm", "threshold": 0}, "adapter": adapter})
    assert _likelihoods(one) == _likelihoods(go("other", {**SMALL, "adapter": adapter}))


def test_der_without_logits_is_replay_to_the_bit(go: Go) -> None:
    mixed = {"share": 0.25, "memory": 1.0}
    replay = go("replay", {**SMALL, "method": {"name": "replay", **mixed}})
    der = go("der", {**SMALL, "method": {"name": "der++", **mixed, "alpha": 0, "beta": 1}})
    assert _likelihoods(der) == _likelihoods(replay)


@pytest.mark.parametrize("case", RESUMED)
def test_what_goes_on_from_disk_ends_as_undisturbed(
    go: Go, tiny: Mapping[str, Any], same: Same, case: str
) -> None:
    settings = {**FAR, "method": RESUMED[case], "adapter": ADAPTERS.get(case.split()[-1], {})}
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    undisturbed = go("undisturbed", settings)
    same(undisturbed, go("grown", settings))
    notes = _notes(undisturbed)
    assert undisturbed.results["cost"]["memory_kept"]["03-size"] > 0
    assert " in 0 of " not in notes.get("03-size", "")


@pytest.mark.parametrize(
    ("method", "per_stage", "said"),
    [
        ("ogd", "new", "set it to continue"),
        ("ogd", "merge", "set it to continue"),
        ("gpm", "continue", "new or merge"),
    ],
)
def test_an_adapter_that_cannot_work_is_refused_before_anything_is_loaded(
    go: Go, method: str, per_stage: str, said: str
) -> None:
    with pytest.raises(UserError, match=rf"^adapter\.per_stage: .*{said}"):
        go("refused", {"method": method, "adapter": {"per_stage": per_stage}, "model": "no/such-model"})


def _notes(run: Run) -> dict[str, str]:
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    return {event["stage"]: event["note"] for event in events if event["event"] == "note"}


def test_a_shortfall_is_in_the_events_of_the_run(go: Go) -> None:
    run = go("short", {**SMALL, "method": {"name": "replay", "share": 0.5, "memory": 2}})
    notes = _notes(run)
    assert list(notes) == ["02-colour", "03-size"]
    assert "asks for 16 past examples and the memory holds 4: their share is 0.200" in notes["03-size"]
    assert run.results["cost"]["rehearsed"] == {"02-colour": 2, "03-size": 4}
    rows = [json.loads(line) for line in (run.path / "stages/03-size/training.jsonl").open()]
    assert sum(row["examples"] for row in rows) == 16 + 4
