"""LoRA held in the layers' weights gives PEFT's numbers, and leaves no trace."""

from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from forgetmenot.models.adapt import adapt
from forgetmenot.models.folding import folded
from forgetmenot.models.settings import AdapterSettings
from tests.models.test_adapt import ARCHITECTURES, _llama

TOKENS = torch.arange(3, 15)[None]


def with_lora(model: Any, **settings: Any) -> Any:
    """The model with an adapter that changes its answers."""
    model = adapt(model, AdapterSettings(rank=4, **settings), 1, 0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.2)
    return model.eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=TOKENS).logits
    return found


def layers(model: Any) -> list[Any]:
    return [one for one in model.modules() if isinstance(one, LoraLayer)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "falcon", "opt"])
def test_it_gives_the_same_numbers_and_puts_every_bit_back(name: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = with_lora(AutoModelForCausalLM.from_config(ARCHITECTURES[name][0]))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = logits(model)
    with folded(model):
        assert all(layer.merged for layer in layers(model))
        assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)
        assert not torch.equal(layers(model)[0].get_base_layer().weight, before[_weight(before)])
    assert not any(layer.merged for layer in layers(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits(model), plain)


def _weight(state: dict[str, Tensor]) -> str:
    return next(name for name in state if name.endswith("base_layer.weight"))


def test_several_active_adapters_are_all_in_it() -> None:
    model = with_lora(_llama())
    model = adapt(model, AdapterSettings(rank=4, per_stage="new"), 2, 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B.stage-02" in name:
                p.normal_(0, 0.2)
    plain = logits(model.eval())
    with folded(model):
        assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(model), plain)


def test_it_puts_back_what_an_error_leaves() -> None:
    model = with_lora(_llama())
    plain = logits(model)
    with pytest.raises(RuntimeError), folded(model):
        raise RuntimeError
    assert torch.equal(logits(model), plain)


def test_a_weight_with_two_uses_stays() -> None:
    """A head that is tied to the embeddings: what is folded into one would be in the other.

    A run refuses such targets; here the weights are tied behind its back.
    """
    model = with_lora(_llama(), targets=["lm_head", "q_proj"])
    base = model.get_base_model()
    base.lm_head.get_base_layer().weight = base.get_input_embeddings().weight
    plain = logits(model)
    with folded(model):
        assert [layer.merged for layer in layers(model)].count(False) == 1
        assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_a_hook_changes_stays() -> None:
    model = with_lora(_llama())
    first = layers(model)[0]
    first.lora_A["default"].register_forward_hook(lambda _, __, inner: 2 * inner)
    plain = logits(model)
    with folded(model):
        assert not first.merged
        assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)


def test_rounded_weights_and_full_fine_tuning_stay() -> None:
    model = with_lora(_llama().bfloat16())
    with folded(model):
        assert not any(layer.merged for layer in layers(model))
    plain = _llama()
    with folded(plain):
        assert torch.equal(logits(plain), logits(_llama()))
