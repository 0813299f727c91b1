"""Whatever a LoRA layer has that LoRA's paper does not, PEFT computes: in bf16 and folded, one by one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook

from forgetmenot.models.folding import folded, learning_folded
from forgetmenot.models.lora_forward import LoraForward
from forgetmenot.models.rounded_lora import rounded_lora


class Tripled(nn.Linear):
    """A linear layer that says something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class One(nn.Module):
    """A single layer, so that nothing else rounds."""

    def __init__(self, kind: type[nn.Linear]) -> None:
        super().__init__()
        self.only = kind(48, 40)

    def forward(self, x: Tensor) -> Any:
        return self.only(x)


def layer_with(
    *, kind: type[nn.Linear] = nn.Linear, dtype: torch.dtype, **options: Any
) -> tuple[Any, LoraLinear]:
    """A model of one layer with an adapter that changes its answers."""
    torch.manual_seed(0)
    model = get_peft_model(One(kind), LoraConfig(r=4, target_modules=["only"], **options))
    layer = model.base_model.model.only
    for b in layer.lora_B.values():
        nn.init.normal_(b.weight, 0, 0.2)
        if b.bias is not None:
            nn.init.normal_(b.bias)
    layer.base_layer.weight.data = layer.base_layer.weight.data.to(dtype)
    return model, layer


def lora_bias(dtype: torch.dtype) -> Any:
    return layer_with(dtype=dtype, lora_bias=True)[0]


def another_class(dtype: torch.dtype) -> Any:
    return layer_with(dtype=dtype, kind=Tripled)[0]


def a_forward_of_its_own(dtype: torch.dtype) -> Any:
    model, layer = layer_with(dtype=dtype)
    plain = layer.base_layer.forward
    layer.base_layer.forward = lambda x: 3 * plain(x)
    return model


def a_hook_on_dropout(dtype: torch.dtype) -> Any:
    model, layer = layer_with(dtype=dtype)
    layer.lora_dropout["default"].register_forward_hook(lambda *given: 3 * given[-1])
    return model


def dora(dtype: torch.dtype) -> Any:
    return layer_with(dtype=dtype, use_dora=True)[0]


def on_another_adapter(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    below = get_peft_model(One(nn.Linear), LoHaConfig(r=4, target_modules=["only"], init_weights=False))
    model = get_peft_model(below.base_model.model, LoraConfig(r=4, target_modules=["only"]))
    layer = model.base_model.model.only
    nn.init.normal_(layer.lora_B["default"].weight, 0, 0.2)
    layer.get_base_layer().weight.data = layer.get_base_layer().weight.data.to(dtype)
    return model


ODD = [lora_bias, another_class, a_forward_of_its_own, a_hook_on_dropout, dora, on_another_adapter]
WAYS: list[tuple[Callable[[Any], AbstractContextManager[Any]], torch.dtype, bool]] = [
    (rounded_lora, torch.bfloat16, True),
    (learning_folded, torch.float32, True),
    (folded, torch.float32, False),
]


def answer(model: Any, dtype: torch.dtype, x: Tensor) -> Tensor:
    bf16 = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
    with bf16:
        found: Tensor = model(x)
    return found


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS)
def test_it_answers_and_learns_as_in_peft(odd: Any, way: Any, dtype: torch.dtype, learns: bool) -> None:
    model, x = odd(dtype), torch.randn(6, 48)
    learning = [p for p in model.parameters() if p.requires_grad]
    theirs = answer(model, dtype, x)
    with way(model):
        ours = answer(model, dtype, x)
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        if learns:
            asked = [torch.autograd.grad(one.sum(), learning, allow_unused=True) for one in (ours, theirs)]
            for our, their in zip(*asked, strict=True):
                assert (our is None) == (their is None)
                assert our is None or torch.allclose(our, their, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS[:2])
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_a_bias_that_learns_has_its_gradient(way: Any, dtype: torch.dtype, learns: bool, bias: str) -> None:
    model, layer = layer_with(dtype=dtype, bias=bias)
    with way(model):
        answer(model, dtype, torch.randn(6, 48)).sum().backward()  # type: ignore[no-untyped-call]
    assert layer.base_layer.bias.grad is not None
    assert layer.base_layer.bias.grad.abs().sum() > 0


@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS[:2])
def test_a_single_row_without_a_batch_is_left_to_peft(way: Any, dtype: torch.dtype, learns: bool) -> None:
    model, x = layer_with(dtype=dtype)[0], torch.randn(48)
    theirs = answer(model, dtype, x)
    with way(model):
        assert torch.allclose(answer(model, dtype, x), theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS[:2])
def test_a_hook_on_all_modules_is_heard(way: Any, dtype: torch.dtype, learns: bool) -> None:
    model, layer = layer_with(dtype=dtype)
    x = torch.randn(6, 48)
    hook = register_module_forward_hook(
        lambda module, _, given: 3 * given if module is layer.lora_A["default"] else None
    )
    try:
        theirs = answer(model, dtype, x)
        with way(model):
            assert torch.equal(answer(model, dtype, x), theirs)
    finally:
        hook.remove()


@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS[:2])
def test_values_at_an_address_that_was_freed_are_not_those_before(
    way: Any, dtype: torch.dtype, learns: bool
) -> None:
    model, x = layer_with(dtype=dtype)[0], torch.randn(6, 48)
    b = {name: p.detach() for name, p in model.named_parameters() if "lora_B" in name}
    factors = (1.0, 2.0, 5.0, 9.0, 3.0, 7.0, 11.0)

    def answers() -> list[Tensor]:
        bf16 = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
        with torch.no_grad(), bf16:
            return [functional_call(model, {name: s * p for name, p in b.items()}, (x,)) for s in factors]

    theirs = answers()
    with way(model):
        ours = answers()
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize(("way", "dtype", "learns"), WAYS[:2])
def test_it_learns_after_a_pass_in_inference_mode(way: Any, dtype: torch.dtype, learns: bool) -> None:
    model, layer = layer_with(dtype=dtype)
    x = torch.randn(6, 48)
    with way(model):
        with torch.inference_mode():
            answer(model, dtype, x)
        answer(model, dtype, x).sum().backward()  # type: ignore[no-untyped-call]
    assert layer.lora_B["default"].weight.grad is not None


def test_dropout_drops_also_where_it_alone_is_in_training() -> None:
    model, layer = layer_with(dtype=torch.bfloat16, lora_dropout=0.5)
    x = torch.randn(200, 48)
    model.eval()
    layer.lora_dropout.train()
    with rounded_lora(model):
        one, other = (answer(model, torch.bfloat16, x) for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("frozen", ["lora_A", "lora_B", "lora"])
def test_nothing_is_kept_for_gradients_that_nobody_asks_for(frozen: str) -> None:
    """The input for A's, the inner products for B's; what learns below needs neither."""
    model, _ = layer_with(dtype=torch.bfloat16)
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and frozen not in name)
    rows = 64
    kept: list[tuple[int, ...]] = []

    def noted(one: Tensor) -> Tensor:
        kept.append(tuple(one.shape))
        return one

    x = torch.randn(rows, 48, requires_grad=True)
    with rounded_lora(model), torch.autograd.graph.saved_tensors_hooks(noted, lambda one: one):
        answer(model, torch.bfloat16, x)
    assert ((rows, 48) in kept) == (frozen == "lora_B")
    assert ((rows, 4) in kept) == (frozen == "lora_A")


def test_a_layer_that_it_knows_it_computes() -> None:
    """Else the tests above would pass whatever was written."""
    for way, dtype, _ in WAYS[:2]:
        model, layer = layer_with(dtype=dtype)
        with way(model):
            assert isinstance(layer.forward, LoraForward)
            answer(model, dtype, torch.randn(6, 48))
            assert layer.forward.state
