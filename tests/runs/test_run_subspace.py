"""Runs of the methods that give tasks parts of their own: the limits in which they are another, and resume."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from forgetmenot.config import RunConfig, load_config
from forgetmenot.errors import UserError
from forgetmenot.models import AdapterSettings
from forgetmenot.runs import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}

LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "freeze nothing, lora": ({"name": "freeze", "share": 0}, {}),
    "freeze nothing, full": ({"name": "freeze", "share": 0}, {"kind": "full"}),
    "o-lora without strength": ({"name": "o-lora", "strength": 0}, {"per_stage": "new"}),
}
"""Methods at a strength that leaves plain sequential fine-tuning, and the adapter that both use."""

RESUMED: dict[str, tuple[Any, dict[str, Any]]] = {
    "freeze lora": ("freeze", {}),
    "freeze full": ("freeze", {"kind": "full"}),
    "o-lora beside": ({"name": "o-lora", "strength": 30}, {}),
    "o-lora merged": ({"name": "o-lora", "strength": 30}, {"per_stage": "merge"}),
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
