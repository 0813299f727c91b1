"""LoRA folded into the layers' own weights while nothing learns: one product for three."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear

FOLDED_BELOW = 1024
"""Up to which width LoRA is folded into a layer to score: beyond, its products cost a hundredth or two."""


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """Hold what LoRA adds in the layers' own weights, for passes without gradients, then put these back.

    A layer then is one product instead of three and two sums. Its numbers are the same up to the rounding of
    the sum; so only fp32 weights are folded, and narrow layers, where it is worth the copy. Left as they are:
    weights that something else uses as well, and adapters that a hook listens to or changes.
    """
    held = []
    with torch.no_grad():
        for layer in _foldable(model):
            active = [name for name in layer.active_adapters if name in layer.lora_A]
            if active:
                weight = layer.get_base_layer().weight
                held.append((layer, weight, weight.data))
                weight.data = weight.data + sum(layer.get_delta_weight(name) for name in active)
                layer.merged_adapters = active  # PEFT's word for weights that hold the adapter
    try:
        yield
    finally:
        for layer, weight, values in held:
            weight.data = values
            layer.merged_adapters = []


def _foldable(model: Any) -> Iterator[LoraLinear]:
    """The layers of a model whose adapters can be folded into their weights."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for layer in model.modules():
        if type(layer) is LoraLinear and not (layer.merged or layer.disable_adapters or layer.lora_variant):
            weight = layer.get_base_layer().weight
            adapters = [*layer.lora_A.values(), *layer.lora_B.values()]
            hooked = any(part._forward_hooks or part._forward_pre_hooks for part in adapters)
            narrow = min(weight.shape) < FOLDED_BELOW
            if weight.dtype == torch.float32 and narrow and uses[id(weight)] == 1 and not hooked:
                yield layer
