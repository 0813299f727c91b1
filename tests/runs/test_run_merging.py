"""Runs of the merging methods: limits in which they are another, their definition, and resume."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16, "training.batch_size": 4}
FULL, MERGED = {"kind": "full"}, {"per_stage": "merge"}
RESUMED: dict[str, tuple[Any, dict[str, str]]] = {
    "averaging, lora": ("weight-averaging", MERGED),
    "averaging with the base, full": ({"name": "weight-averaging", "anchor": "base"}, FULL),
    "task-arithmetic, lora": ("task-arithmetic", MERGED),
    "ties, full": ("ties", FULL),
    "dare": ({"name": "dare", "merge": "ties"}, MERGED),
    "magmax, full": ("magmax", FULL),
    "magmax, lora": ("magmax", MERGED),
    "ema": ({"name": "ema", "decay": 0.8, "strength": 1.0}, {}),
}


def _answers(run: Run, stage: int) -> list[list[float]]:
    answers: list[list[float]] = run.predictions(stage)["log_likelihoods"].map(list).tolist()
    return answers


def _weights(run: Run, stage: int) -> dict[str, torch.Tensor]:
    name = run.results["stages"][stage]["name"]
    found: dict[str, torch.Tensor] = load_file(run.path / "stages" / name / "model" / "model.safetensors")
    return found


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        ({"name": "weight-averaging", "share": 1}, FULL),
        ({"name": "weight-averaging", "share": 1}, MERGED),
        ({"name": "ema", "decay": 0}, {}),
        ({"name": "ema", "answers": "fast"}, FULL),
    ],
    ids=["averaging full", "averaging lora", "ema lora", "ema full"],
)
def test_in_the_limit_it_is_sequential_to_the_bit(go: Go, method: Any, adapter: dict[str, str]) -> None:
    one = go("one", {**SMALL, "method": method, "adapter": adapter})
    other = go("other", {**SMALL, "adapter": adapter})
    assert [_answers(one, k) for k in range(4)] == [_answers(other, k) for k in range(4)]


@pytest.mark.parametrize(
    ("merging", "settings"),
    [
        ("forgetmenot.runs.stage_training.finish_stage", {"adapter": MERGED}),
        ("forgetmenot.models.quantize.merged", {"method": "osf"}),
    ],
    ids=["lora", "osf"],
)
def test_a_merge_that_loses_what_was_learned_stops_the_run(
    merging: str, settings: Mapping[str, Any], go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, lambda model, *_: model.unload())
    with pytest.raises(UserError, match="The merged model is another one than was trained"):
        go("one", {**SMALL, **settings, "training.learning_rate": 0.03})
    assert [path.name for path in (tmp_path / "one/stages").glob("0*")] == ["00-base"]


@pytest.mark.parametrize("adapter", [FULL, MERGED], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["task-arithmetic", "magmax", "weight-averaging"])
def test_nothing_merged_is_the_base_to_the_bit(
    go: Go, tiny: Mapping[str, Any], name: str, adapter: dict[str, str]
) -> None:
    key = "share" if name == "weight-averaging" else "scale"
    settings = {**SMALL, "tasks": tiny["tasks"][:2], "adapter": adapter}
    run = go("one", {**settings, "method": {"name": name, key: 0}})
    assert _answers(run, 0) == _answers(run, 1) == _answers(run, 2)


@pytest.mark.parametrize("adapter", [FULL, MERGED], ids=["full", "lora"])
def test_task_arithmetic_adds_up_what_single_learns(go: Go, adapter: dict[str, str]) -> None:
    """θ₀ + λ Σ (θₜ − θ₀), with θₜ the weights that the method `single` writes; the rows follow each other."""
    single = go("single", {**SMALL, "method": "single", "adapter": adapter})
    nothing = {"name": "task-arithmetic", "scale": 0}
    base = _weights(go("base", {**SMALL, "method": nothing, "adapter": adapter}), 1)
    run = go("one", {**SMALL, "method": {"name": "task-arithmetic", "scale": 0.7}, "adapter": adapter})
    trained = [_weights(single, k) for k in (1, 2, 3)]
    for count in (1, 2, 3):
        for name, value in _weights(run, count).items():
            moved = torch.stack([weights[name] - base[name] for weights in trained[:count]]).sum(0)
            assert torch.allclose(value, base[name] + 0.7 * moved, atol=1e-6)
    assert any(not torch.allclose(base[name], trained[0][name], atol=1e-4) for name in base)
    assert run.summary()["backward_transfer"] is not None


def test_magmax_goes_on_from_where_the_task_before_was_trained(go: Go, tiny: Mapping[str, Any]) -> None:
    """Not from the merged model: with the largest change halved, training is still that of `sequential`.

    Only nearly: adding and subtracting the base rounds, and Adam divides small gradients by themselves.
    """
    settings = {**SMALL, "tasks": tiny["tasks"][:2], "adapter": FULL, "training.learning_rate": 1e-3}
    sequential = go("sequential", settings)
    run = go("one", {**settings, "method": {"name": "magmax", "scale": 0.5}})
    state = load_file(run.path / "stages" / run.results["stages"][2]["name"] / "method.safetensors")
    first, second, one = (_weights(r, k) for r, k in ((sequential, 1), (sequential, 2), (run, 2)))
    for name in first:
        base = first[name] - state[f"0.{name}"]
        moved = (second[name] - first[name]).norm()
        assert (state[f"1.{name}"] - (second[name] - base)).norm() < 0.02 * moved
        pair = torch.stack([state[f"0.{name}"], state[f"1.{name}"]])
        largest = torch.where(pair[1].abs() > pair[0].abs(), pair[1], pair[0])
        assert torch.allclose(one[name], base + 0.5 * largest, atol=1e-5)


@pytest.mark.parametrize("anchor", ["previous", "base"])
def test_averaging_is_half_way_to_its_anchor(go: Go, tiny: Mapping[str, Any], anchor: str) -> None:
    """The first stage is the same for both; what the second goes back to is where it began, or the base."""
    settings = {**SMALL, "tasks": tiny["tasks"][:2], "adapter": FULL}
    run = go("one", {**settings, "method": {"name": "weight-averaging", "anchor": anchor}})
    sequential = go("sequential", settings)
    base = _weights(go("base", {**settings, "method": {"name": "weight-averaging", "share": 0}}), 1)
    after, averaged = _weights(sequential, 1), _weights(run, 1)
    for name, value in averaged.items():
        assert torch.allclose(value, (base[name] + after[name]) / 2, atol=1e-6)


def test_dare_that_drops_nothing_is_task_arithmetic(go: Go) -> None:
    one = go("one", {**SMALL, "method": {"name": "dare", "rate": 0}, "adapter": MERGED})
    other = go("other", {**SMALL, "method": "task-arithmetic", "adapter": MERGED})
    dropping = go("dropping", {**SMALL, "method": "dare", "adapter": MERGED})
    assert [_answers(one, k) for k in range(4)] == [_answers(other, k) for k in range(4)]
    assert _answers(dropping, 3) != _answers(other, 3)


@pytest.mark.parametrize("case", RESUMED)
def test_what_is_remembered_is_found_again(go: Go, same: Same, tiny: Mapping[str, Any], case: str) -> None:
    """Stopped after two stages and gone on from their files, against undisturbed."""
    method, adapter = RESUMED[case]
    settings = {**SMALL, "method": method, "adapter": adapter}
    undisturbed = go("undisturbed", settings)
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    same(undisturbed, go("grown", settings))


@pytest.mark.parametrize("name", ["weight-averaging", "task-arithmetic", "ties", "dare", "magmax"])
def test_lora_is_merged_into_the_weights_unless_said_otherwise(name: str, go: Go) -> None:
    for adapter in ({}, {"kind": "lora"}):
        config = load_config(None, {"tasks": "sst2", "method": name, "adapter": adapter})
        assert config.adapter.per_stage == "merge"
    full = load_config(None, {"tasks": "sst2", "method": name, "adapter": {"kind": "full"}})
    assert full.adapter.per_stage == "continue"
    with pytest.raises(UserError, match=r"adapter\.per_stage: this method works with merge, not continue"):
        go("one", {"method": name, "adapter.per_stage": "continue", "model": "not-there"})


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("weight-averaging", {"share": 1.5}),
        ("task-arithmetic", {"scale": -1}),
        ("ties", {"density": 0}),
        ("dare", {"rate": 1}),
        ("ema", {"decay": 1}),
    ],
)
def test_options_out_of_bounds_are_refused(name: str, option: dict[str, float], go: Go) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(option))}"):
        go("one", {"method": {"name": name, **option}})
