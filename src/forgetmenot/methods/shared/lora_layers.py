"""The linear layers with LoRA adapters: which adapter learns, and what the layer is without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.merge import adapted_layers

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


def linear_layers(learner: Learner) -> dict[str, LoraLayer]:
    """The adapted layers, by name.

    Raises:
        UserError: If one is an embedding, or the rank is more than one has inputs or outputs.
    """
    layers = adapted_layers(learner)
    for name, layer in layers.items():
        if not layer.lora_A:
            raise UserError(
                f"adapter.targets: {name} is an embedding, and this method works with linear layers alone; "
                "leave it out."
            )
        adapter = learning(layer)
        most = min(layer.lora_A[adapter].in_features, layer.lora_B[adapter].out_features)
        if layer.lora_A[adapter].out_features > most:
            raise UserError(
                f"adapter.rank: this method takes at most {most} here, the lesser of the inputs and outputs "
                f"of {name}; set a lower rank, or leave such layers out of adapter.targets."
            )
    return layers


def learning(layer: LoraLayer) -> str:
    """The name of the adapter that learns, the last one."""
    names: list[str] = layer.active_adapters
    return next(name for name in reversed(names) if layer.lora_B[name].weight.requires_grad)


def weight_before(layer: LoraLayer) -> Tensor:
    """The layer's weight with the adapters of earlier stages, without the one that learns.

    Returns:
        fp32 [outputs, inputs], decoded where it is quantized.
    """
    from peft.utils.integrations import dequantize_module_weight

    adapter = learning(layer)
    base = dequantize_module_weight(layer.get_base_layer()).detach().float()
    earlier = [layer.get_delta_weight(name).detach() for name in layer.active_adapters if name != adapter]
    whole: Tensor = sum(earlier, start=base)
    return whole.T if layer.fan_in_fan_out else whole
