"""A stage's weights on disk come back to the bit, whatever learned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.models.weights import has_weights, load_weights, save_weights

MODES = {
    "continue": AdapterSettings(),
    "new": AdapterSettings(per_stage="new"),
    "merge": AdapterSettings(per_stage="merge"),
    "full": AdapterSettings(kind="full"),
}
CPU = torch.device("cpu")


def _base(folder: Path, settings: AdapterSettings, dtype: Any = "auto") -> Any:
    model = ModelSettings(name=str(folder), dtype=dtype)
    return load_model(model, trainable=settings.kind == "full", device=CPU).model


def _lived_through(folder: Path, settings: AdapterSettings, stages: int, dtype: Any = "auto") -> Any:
    """A model after some stages: after each, what learned has other values."""
    model = _base(folder, settings, dtype)
    generator = torch.Generator().manual_seed(1)
    for stage in range(1, stages + 1):
        model = adapt(model, settings, stage, seed=stage)
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value += 0.05 * torch.randn(value.shape, generator=generator)
        model = finish_stage(model, settings)
    return model


def _held(model: Any) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = model.state_dict()
    return held


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_saved_comes_back_to_the_bit(
    tiny_llama: Path, tmp_path: Path, mode: str, stages: int
) -> None:
    settings = MODES[mode]
    model = _lived_through(tiny_llama, settings, stages)
    assert not has_weights(tmp_path)
    save_weights(model, settings, tmp_path)
    assert has_weights(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    loaded = load_weights(_base(tiny_llama, settings), tmp_path, trainable=True)
    one, other = _held(model), _held(loaded)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not loaded.training
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, loaded(tokens).logits)


@pytest.mark.parametrize("mode", MODES)
def test_the_next_stage_learns_the_same_either_way(tiny_llama: Path, tmp_path: Path, mode: str) -> None:
    settings = MODES[mode]
    model = _lived_through(tiny_llama, settings, 2)
    save_weights(model, settings, tmp_path)
    loaded = load_weights(_base(tiny_llama, settings), tmp_path, trainable=True)
    on, anew = (adapt(one, settings, 3, seed=3) for one in (model, loaded))
    learning = [
        {name: value for name, value in one.named_parameters() if value.requires_grad} for one in (on, anew)
    ]
    assert list(learning[0]) == list(learning[1])  # in this order the optimizer sums
    assert learning[0]
    assert all(torch.equal(learning[0][name], learning[1][name]) for name in learning[0])


def test_for_answering_alone_nothing_learns(tiny_llama: Path, tmp_path: Path) -> None:
    for mode in ("continue", "new"):
        save_weights(_lived_through(tiny_llama, MODES[mode], 2), MODES[mode], tmp_path / mode)
        loaded = load_weights(_base(tiny_llama, MODES[mode]), tmp_path / mode, trainable=False)
        assert not any(value.requires_grad for value in loaded.parameters())


def test_an_adapter_in_fp32_stays_so_beside_weights_in_bf16(tiny_llama: Path, tmp_path: Path) -> None:
    for mode in ("continue", "new"):
        model = _lived_through(tiny_llama, MODES[mode], 2, "bf16")
        save_weights(model, MODES[mode], tmp_path / mode)
        loaded = load_weights(_base(tiny_llama, MODES[mode], "bf16"), tmp_path / mode, trainable=True)
        assert {n: v.dtype for n, v in _held(model).items()} == {n: v.dtype for n, v in _held(loaded).items()}
        assert all(torch.equal(_held(model)[name], value) for name, value in _held(loaded).items())


@pytest.mark.parametrize("mode", ["continue", "full"])
def test_damaged_weights_are_said_to_be(tiny_llama: Path, tmp_path: Path, mode: str) -> None:
    save_weights(_lived_through(tiny_llama, MODES[mode], 1), MODES[mode], tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"(model|adapter_model.safetensors) is damaged"):
        load_weights(_base(tiny_llama, MODES[mode]), tmp_path, trainable=False)


def test_where_there_are_none_the_setting_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no weights: .* as only `checkpoints: all`"):
        load_weights(_base(tiny_llama, MODES["full"]), tmp_path, trainable=False)


def test_an_adapters_config_has_one_order(tiny_llama: Path, tmp_path: Path) -> None:
    """PEFT writes the targets in that of a set, which is another in each process."""
    save_weights(_lived_through(tiny_llama, MODES["new"], 2), MODES["new"], tmp_path)
    configs = sorted(tmp_path.rglob("adapter_config.json"))
    assert len(configs) == 2
    for config in configs:
        targets = json.loads(config.read_text())["target_modules"]
        assert targets == sorted(targets)
