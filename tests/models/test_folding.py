"""LoRA held in the layers' weights gives PEFT's numbers, and leaves no trace."""

import gc
import weakref
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from forgetmenot.engine.head import replaced_forward
from forgetmenot.models.adapt import adapt
from forgetmenot.models.adapters.lora import answering_with
from forgetmenot.models.folding import folded, learning_folded
from forgetmenot.models.settings import AdapterSettings
from tests.models.test_adapt import ARCHITECTURES, _llama

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
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


def test_where_folding_fails_half_way_every_bit_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = with_lora(_llama())
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def fail(name: str) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(layers(model)[3], "get_delta_weight", fail)
    with pytest.raises(torch.OutOfMemoryError), folded(model):
        pass
    assert not any(layer.merged for layer in layers(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


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


# While adapters learn


def losses_gradients(model: Any) -> dict[str, Tensor]:
    """The gradient of the loss of every token, by name of what learns."""
    model.zero_grad()
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_alike(found: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    assert found.keys() == truth.keys()
    norm = torch.cat([one.flatten() for one in truth.values()]).norm()
    assert norm > 0.01
    for name, gradient in truth.items():
        assert (found[name] - gradient).norm() < 1e-5 * norm, name


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "falcon", "opt", "phi"])
@pytest.mark.parametrize("per_stage", ["continue", "new"])
def test_gradients_are_those_of_peft(name: str, per_stage: str) -> None:
    torch.manual_seed(0)
    model = with_lora(AutoModelForCausalLM.from_config(ARCHITECTURES[name][0]), per_stage=per_stage)
    if per_stage == "new":
        model = adapt(model, AdapterSettings(rank=4, per_stage="new"), 2, 1)
    truth, plain = losses_gradients(model), logits(model)
    with learning_folded(model):
        assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)
        assert_alike(losses_gradients(model), truth)
    assert torch.equal(logits(model), plain), "nothing is left of it"


def test_other_values_are_taken_up() -> None:
    """By a step of an optimizer, by a copy, and back: what was formed before is of no use."""
    model = with_lora(_llama())
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, fused=True)
    with learning_folded(model) as stepped:
        before = losses_gradients(model)
        optimizer.step()
        stepped()
        seen = losses_gradients(model)
    assert_alike(seen, losses_gradients(model))
    assert not torch.allclose(seen[FIRST], before[FIRST], rtol=0.01)
    with learning_folded(model):
        plain = logits(model)
        kept = [p.detach().clone() for p in learning]
        with torch.no_grad():
            for p in learning:
                p.mul_(2)
        changed = logits(model)
        assert not torch.allclose(changed, plain, atol=1e-3)
        with torch.no_grad():
            for p, value in zip(learning, kept, strict=True):
                p.copy_(value)
        assert torch.allclose(logits(model), plain, atol=1e-6)
        with answering_with(model, []):
            base = logits(model)
    with model.disable_adapter():
        assert torch.allclose(base, logits(model), atol=1e-6)


def test_dropout_stays_and_scoring_between_folds_as_before() -> None:
    dropping = with_lora(_llama(), dropout=0.5).train()
    with learning_folded(dropping):
        assert not torch.equal(losses_gradients(dropping)[FIRST], losses_gradients(dropping)[FIRST])
    model = with_lora(_llama())
    plain = logits(model)
    with learning_folded(model):
        losses_gradients(model)
        with folded(model):
            assert torch.allclose(logits(model), plain, rtol=1e-5, atol=1e-5)


def test_two_sets_of_values_take_turns_before_the_backward_pass() -> None:
    """As a teacher's head and a student's do, whose adapters are both in use until then."""
    model = with_lora(_llama(), targets=["lm_head", "q_proj"])
    others = {name: 2 * p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        own = model(input_ids=TOKENS).logits.log_softmax(-1)
        with torch.no_grad():
            taught = functional_call(model, others, args=(), kwargs={"input_ids": TOKENS}).logits
        (taught.softmax(-1) * own).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    truth = gradients()
    with learning_folded(model):
        assert_alike(gradients(), truth)


@pytest.mark.parametrize("still", ["lora_A", "lora_B"])
def test_half_of_an_adapter_learns_alone(still: str) -> None:
    """As in LoRA-FA, where A stays as it was drawn."""
    model = with_lora(_llama())
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and still not in name)
    truth = losses_gradients(model)
    with learning_folded(model):
        assert_alike(losses_gradients(model), truth)


@pytest.mark.parametrize("part", ["base_layer", "lora_A.default"])
@pytest.mark.parametrize("backward", [False, True])
def test_a_hook_on_any_part_is_heard(part: str, backward: bool) -> None:
    model = with_lora(_llama())
    heard: list[int] = []
    for layer in layers(model):
        module = layer.get_submodule(part)
        listen = module.register_full_backward_hook if backward else module.register_forward_hook
        listen(lambda *_: heard.append(1))
    losses_gradients(model)
    count = len(heard)
    assert count > 0
    with learning_folded(model):
        losses_gradients(model)
    assert len(heard) == 2 * count
    if not backward:
        with folded(model):
            logits(model)
        assert len(heard) == 3 * count


def test_a_gradient_of_the_gradient_is_refused() -> None:
    model = with_lora(_llama())
    model.config._attn_implementation = "eager"
    learning = [p for p in model.parameters() if p.requires_grad]
    with learning_folded(model):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        first = torch.autograd.grad(loss, learning, create_graph=True)
        norm = torch.stack([one.square().sum() for one in first]).sum()
        with pytest.raises(RuntimeError, match="once_differentiable"):
            norm.backward()  # type: ignore[no-untyped-call]


def test_an_adapter_that_a_hook_changes_learns_as_in_peft() -> None:
    model = with_lora(_llama())
    with learning_folded(model):
        hooks = [
            layer.lora_A["default"].register_forward_hook(lambda *_: _[2] * 3) for layer in layers(model)
        ]
        seen = losses_gradients(model)
    truth = losses_gradients(model)
    for hook in hooks:
        hook.remove()
    assert_alike(seen, truth)


def test_it_holds_no_weights_when_it_is_over() -> None:
    """Else a model that was given up stays until the garbage is collected, beside the next one."""
    model = with_lora(_llama())
    with learning_folded(model):
        losses_gradients(model)
    with replaced_forward(model.get_output_embeddings(), lambda hidden: hidden):
        pass
    assert not any("forward" in vars(module) for module in model.modules())
    weight = weakref.ref(layers(model)[0].get_base_layer().weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()
