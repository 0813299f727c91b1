"""LoRA beside weights in bf16 gives PEFT's numbers, nearer to the truth, and leaves no trace."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from forgetmenot.engine.precision import rounded_once
from forgetmenot.models.adapt import adapt
from forgetmenot.models.adapters.lora import answering_with
from forgetmenot.models.rounded_lora import _Beside, rounded_lora
from forgetmenot.models.settings import AdapterSettings
from tests.models.test_adapt import ARCHITECTURES, _llama
from tests.models.test_folding import FIRST, TOKENS, layers, with_lora


def learned(model: Any) -> list[Tensor]:
    """The logits, then the gradients of what learns, with activations in bf16."""
    model.zero_grad()
    with rounded_once(model, "bf16"), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(input_ids=TOKENS, labels=TOKENS)
        torch.autograd.backward(found.loss)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [found.logits.detach(), torch.cat([one.flatten() for one in gradients])]


def exact(model: Any) -> list[Tensor]:
    """The same in fp64, with the weights as bf16 has rounded them."""
    twin = deepcopy(model)
    with rounded_once(twin, "bf16"):
        rounded = {name: p.detach().double() for name, p in twin.named_parameters()}
    twin.double()
    with torch.no_grad():
        for name, p in twin.named_parameters():
            p.copy_(rounded[name])
    twin.zero_grad()
    found = twin(input_ids=TOKENS, labels=TOKENS)
    torch.autograd.backward(found.loss)
    gradients = [p.grad for p in twin.parameters() if p.grad is not None]
    return [found.logits.detach(), torch.cat([one.flatten() for one in gradients])]


def apart(one: Tensor, truth: Tensor) -> float:
    return float((one.double() - truth).norm() / truth.norm())


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers have answered so; one is appended for each."""
    calls: list[int] = []
    plain: Callable[..., Tensor] = _Beside.apply

    def noted(*given: Any) -> Any:
        calls.append(1)
        return plain(*given)

    monkeypatch.setattr(_Beside, "apply", noted)
    return calls


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "falcon", "opt", "phi"])
@pytest.mark.parametrize("per_stage", ["continue", "new"])
def test_it_errs_no_more_than_peft(name: str, per_stage: str, used: list[int]) -> None:
    """Taken over some models: of a single one, rounding may open or close a gate by chance."""
    errors = torch.zeros(9, 2, 2)  # of logits and of gradients, by PEFT and here
    for seed in range(9):
        model = drawn(name, per_stage, seed)
        truth, theirs = exact(model), learned(model)
        assert not used
        with rounded_lora(model):
            ours = learned(model)
        transposed = sum(one.fan_in_fan_out for one in layers(model))
        assert len(used) == len(layers(model)) - transposed
        assert (name == "gpt2") == bool(transposed)
        used.clear()
        for k in range(2):
            errors[seed, k] = torch.tensor([apart(theirs[k], truth[k]), apart(ours[k], truth[k])])
        again = learned(model)
        assert all(map(torch.equal, again, theirs)), "nothing is left of it"
    (logits_peft, logits), (gradients_peft, gradients) = errors.median(0).values.tolist()
    assert logits < 1.05 * logits_peft
    assert gradients < 2 * gradients_peft, "far off; a layer's own are below"


@pytest.mark.parametrize("per_stage", ["continue", "new"])
def test_the_gradients_of_a_layer_err_no_more_than_pefts(per_stage: str, used: list[int]) -> None:
    model = drawn("llama", per_stage, 0)
    layer = layers(model)[5]
    width = layer.get_base_layer().weight.shape
    given = torch.randn(3, 40, width[1]).bfloat16().requires_grad_()
    gradient = torch.randn(3, 40, width[0]).bfloat16()
    learning = [given, *(p for p in layer.parameters() if p.requires_grad)]

    def found() -> list[Tensor]:
        with rounded_once(model, "bf16"):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = layer(given)
            return [out.detach(), *torch.autograd.grad(out, learning, gradient)]

    theirs = found()
    with rounded_lora(model):
        ours = found()
    assert len(used) == 1
    with rounded_once(model, "bf16"):
        weight = layer.get_base_layer().weight.detach().double()
    twin = deepcopy(layer).double()
    twin.get_base_layer().weight.data = weight
    wide = given.detach().double().requires_grad_()
    out = twin(wide)
    rest = [p for p in twin.parameters() if p.requires_grad]
    truth = [out.detach(), *torch.autograd.grad(out, [wide, *rest], gradient.double())]
    assert len(truth) == len(ours) == 4
    for one, their, true in zip(ours, theirs, truth, strict=True):
        assert one.dtype == their.dtype
        assert apart(one, true) < 1.1 * apart(their, true)


def drawn(name: str, per_stage: str, seed: int) -> Any:
    """A model with an adapter that changes its answers, or with two, of which the second learns."""
    torch.manual_seed(seed)
    model = with_lora(AutoModelForCausalLM.from_config(ARCHITECTURES[name][0]), per_stage=per_stage)
    if per_stage == "new":
        model = adapt(model, AdapterSettings(rank=4, per_stage="new"), 2, 1)
        with torch.no_grad():
            for parameter, p in model.named_parameters():
                if "lora_B.stage-02" in parameter:
                    p.normal_(0, 0.2)
    return model.eval()


def test_an_adapter_that_adds_nothing_changes_no_bit() -> None:
    model = adapt(_llama(), AdapterSettings(rank=4), 1, 0).eval()
    with rounded_lora(model):
        found = learned(model)[0]
        with model.disable_adapter():
            assert torch.equal(learned_logits(model), found)


def learned_logits(model: Any) -> Tensor:
    with torch.no_grad(), rounded_once(model, "bf16"), torch.autocast("cpu", dtype=torch.bfloat16):
        found: Tensor = model(input_ids=TOKENS).logits
    return found


def test_scores_are_those_of_the_pass_that_learns(used: list[int]) -> None:
    model = with_lora(_llama())
    with rounded_lora(model):
        assert torch.equal(learned_logits(model), learned(model)[0])
    assert len(used) == 2 * len(layers(model))


def test_other_values_are_taken_up() -> None:
    """By a step of an optimizer, by a copy, and back: what was formed before is of no use."""
    model = with_lora(_llama())
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, fused=True)
    with rounded_once(model, "bf16"), rounded_lora(model) as stepped:  # once for all steps, as in training
        before = learned(model)[0]
        optimizer.step()
        stepped()
        stepped_to = learned(model)[0]
        for p in learning:
            p.data.mul_(0.5)  # as some methods do, which PyTorch does not count
        stepped()
        after = learned(model)[0]
    assert not torch.allclose(stepped_to, before, rtol=0.01)
    assert not torch.allclose(after, stepped_to, rtol=0.01)
    with rounded_once(model, "bf16"), rounded_lora(model):
        assert torch.equal(learned(model)[0], after)
        kept = [p.detach().clone() for p in learning]
        with torch.no_grad():
            for p in learning:
                p.mul_(2)
        assert not torch.allclose(learned_logits(model), after, atol=1e-3)
        with torch.no_grad():
            for p, value in zip(learning, kept, strict=True):
                p.copy_(value)
        assert torch.equal(learned_logits(model), after)
        with answering_with(model, []):
            base = learned_logits(model)
    with model.disable_adapter():
        assert torch.equal(base, learned_logits(model))


@pytest.mark.parametrize("still", ["lora_A", "lora_B"])
def test_half_of_an_adapter_learns_alone(still: str) -> None:
    model = with_lora(_llama())
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and still not in name)
    truth = exact(model)[1]
    with rounded_lora(model):
        assert apart(learned(model)[1], truth) < 0.05


def test_what_it_does_not_know_is_left_to_peft(used: list[int]) -> None:
    """Passes in fp32, the LM head, dropout while it drops, and parts that a hook changes."""
    model = with_lora(_llama(), targets=["lm_head", "q_proj"])
    with torch.no_grad():
        plain = model(input_ids=TOKENS).logits
        with rounded_lora(model):
            assert torch.equal(model(input_ids=TOKENS).logits, plain)
    assert not used
    with rounded_lora(model):
        learned(model)
    assert len(used) == len(layers(model)) - 1
    used.clear()
    dropping = with_lora(_llama(), dropout=0.5)
    with rounded_lora(dropping):
        learned_logits(dropping)
        assert len(used) == len(layers(dropping))
        learned(dropping.train())
        assert len(used) == len(layers(dropping))
    hooked = with_lora(_llama())
    first = layers(hooked)[0]
    with rounded_lora(hooked):
        first.lora_A["default"].register_forward_hook(lambda *_: _[2] * 3)
        used.clear()
        seen = learned(hooked)[0]
    assert len(used) == len(layers(hooked)) - 1
    assert torch.allclose(seen, learned(hooked)[0], rtol=0.05, atol=0.05)


def test_gradients_keep_the_dtype_of_what_they_are_of() -> None:
    model = with_lora(_llama())
    with rounded_lora(model):
        learned(model)
    assert dict(model.named_parameters())[FIRST].grad.dtype == torch.float32
