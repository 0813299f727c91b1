"""Which parameters learn in each stage, for models that name and build their layers differently."""

from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    OPTConfig,
    PhiConfig,
)

from forgetmenot.errors import UserError
from forgetmenot.models.adapt import ADAPTERS, adapt, finish_stage
from forgetmenot.models.quantize import merged
from forgetmenot.models.settings import KINDS, AdapterSettings

SIZE = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
# The linear layers of one block: what `all-linear` must find, and nothing else.
ARCHITECTURES = {
    "llama": (
        LlamaConfig(**SIZE, intermediate_size=48),
        {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    ),
    "gpt2": (GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4), {"c_attn", "c_proj", "c_fc"}),
    "gpt-neox": (
        GPTNeoXConfig(**SIZE, intermediate_size=48),
        {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    ),
    "falcon": (
        FalconConfig(**SIZE, alibi=False),
        {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    ),
    "bloom": (
        BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4),
        {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    ),
    "mamba": (
        MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2),
        {"in_proj", "x_proj", "dt_proj"},  # PEFT refuses the others of a state-space model
    ),
    "opt": (
        OPTConfig(**SIZE, ffn_dim=48, word_embed_proj_dim=32),
        {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    ),
    "phi": (
        PhiConfig(**SIZE, intermediate_size=48),
        {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    ),
}


def _llama() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(ARCHITECTURES["llama"][0]).eval()


def _learning(model: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(7)[None]).logits
    return logits


def _move(model: Any) -> None:
    """As a stage's training would: what learns gets other values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in _learning(model).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_linear_is_every_linear_layer_but_the_head(name: str) -> None:
    config, expected = ARCHITECTURES[name]
    model = adapt(AutoModelForCausalLM.from_config(config), AdapterSettings(), 1, 0)
    adapted = [path for path, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert {path.split(".")[-1] for path in adapted} == expected
    assert len(adapted) % 2 == 0  # as many in both blocks
    assert not isinstance(model.get_output_embeddings(), LoraLayer)
    assert not isinstance(model.get_input_embeddings(), LoraLayer)
    learning = _learning(model)
    assert len(learning) == 2 * len(adapted)
    assert all(".lora_A." in path or ".lora_B." in path for path in learning)


def test_an_adapter_begins_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _llama()
    before = _logits(model)
    assert torch.equal(_logits(adapt(model, AdapterSettings(), 1, 0)), before)


def test_settings_reach_the_adapter() -> None:
    settings = AdapterSettings(rank=3, alpha=12.0, dropout=0.25, targets=["q_proj", "down_proj"])
    model = adapt(_llama(), settings, 1, 0)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 4
    for layer in layers:
        assert layer.r["default"] == 3
        assert layer.scaling["default"] == 4.0
        assert layer.lora_dropout["default"].p == 0.25


def test_an_adapter_is_drawn_by_its_seed_alone() -> None:
    one = _learning(adapt(_llama(), AdapterSettings(), 1, 5))
    torch.manual_seed(77)
    other = _learning(adapt(_llama(), AdapterSettings(), 1, 5))
    third = _learning(adapt(_llama(), AdapterSettings(), 1, 6))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_an_adapter_learns_in_fp32_beside_weights_in_bf16() -> None:
    for per_stage in ("continue", "new"):
        model = _llama().bfloat16()
        for stage in (1, 2):
            model = adapt(model, AdapterSettings(per_stage=per_stage), stage, 0)
            assert {value.dtype for value in _learning(model).values()} == {torch.float32}
        frozen = {v.dtype for n, v in model.named_parameters() if "lora" not in n}
        assert frozen == {torch.bfloat16}


def test_full_fine_tuning_learns_everything() -> None:
    model = _llama().requires_grad_(False)
    adapted = adapt(model, AdapterSettings(kind="full"), 1, 0)
    assert adapted is model
    assert all(value.requires_grad for value in model.parameters())


def test_an_unknown_target_names_the_layers_there_are() -> None:
    with pytest.raises(UserError, match=r"adapter\.targets: .*'c_attn'.*down_proj.*q_proj"):
        adapt(_llama(), AdapterSettings(targets=["c_attn"]), 1, 0)


def test_a_target_that_peft_refuses_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["mamba"][0])
    with pytest.raises(UserError, match=r"adapter\.targets: 'out_proj' of a mamba cannot be adapted\."):
        adapt(model, AdapterSettings(targets=["in_proj", "out_proj"]), 1, 0)


def test_continue_goes_on_with_the_same_adapter() -> None:
    settings = AdapterSettings()
    model = adapt(_llama(), settings, 1, 0)
    _move(model)
    before = {name: value.clone() for name, value in _learning(model).items()}
    again = adapt(finish_stage(model, settings), settings, 2, 9)
    assert again is model
    assert all(torch.equal(before[name], value) for name, value in _learning(again).items())


def test_new_adds_an_adapter_and_freezes_the_earlier_which_stays_active() -> None:
    settings = AdapterSettings(per_stage="new")
    model = adapt(_llama(), settings, 1, 0)
    _move(model)
    before, first = _logits(model), set(_learning(model))
    model = adapt(finish_stage(model, settings), settings, 2, 1)
    assert model.active_adapters == ["default", "stage-02"]
    second = set(_learning(model))
    assert second.isdisjoint(first)
    assert all(".stage-02." in name for name in second)
    assert torch.equal(_logits(model), before)  # the first still answers, the second is nothing yet
    _move(model)
    model = adapt(finish_stage(model, settings), settings, 3, 2)
    assert model.active_adapters == ["default", "stage-02", "stage-03"]
    assert all(".stage-03." in name for name in _learning(model))


def test_merge_puts_the_adapter_into_the_weights_and_begins_anew() -> None:
    settings = AdapterSettings(per_stage="merge")
    model = adapt(_llama(), settings, 1, 0)
    _move(model)
    before = _logits(model)
    model = finish_stage(model, settings)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert torch.allclose(_logits(model), before, atol=1e-5)
    base = {name: value.clone() for name, value in model.named_parameters()}
    model = adapt(model, settings, 2, 1)
    held = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): v
        for name, v in model.named_parameters()
    }
    assert all(torch.equal(held[name], value) for name, value in base.items())
    assert all(".lora_" in name for name in _learning(model))


@pytest.mark.parametrize("per_stage", ["continue", "new"])
def test_merged_answers_as_the_adapters_did(per_stage: str) -> None:
    settings = AdapterSettings(per_stage=per_stage)
    model = _llama()
    for stage in (1, 2):
        model = adapt(model, settings, stage, stage)
        _move(model)
    before = _logits(model)
    plain = merged(model)
    assert not any(isinstance(module, LoraLayer) for module in plain.modules())
    assert torch.allclose(_logits(plain), before, atol=1e-5)


def test_a_plain_model_is_merged_as_it_is() -> None:
    model = _llama()
    assert merged(model) is model


@pytest.mark.parametrize(
    ("kind", "width", "rate"),
    [
        ("lora", 4096, 2e-4),
        ("lora", 2048, 2e-4),
        ("lora", 256, 1.6e-3),
        ("full", 2048, 1e-5),
        ("full", 896, 5.2e-5),
        ("prompt", 256, 1e-2),
    ],
)
def test_the_automatic_learning_rate(kind: str, width: int, rate: float) -> None:
    assert ADAPTERS[kind].default_rate(width) == pytest.approx(rate, rel=0.01)


def test_the_kinds_that_a_config_knows_are_those_that_do_something() -> None:
    assert KINDS.keys() == ADAPTERS.keys()
    folders = [kind.folder for kind in ADAPTERS.values()]
    assert len(set(folders)) == len(folders)  # by its folder a kind is known on disk
