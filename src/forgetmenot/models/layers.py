"""The layers of a language model by number: those of `adapter.layers` learn, those below never change."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from forgetmenot.errors import UserError

Layers = Literal["all"] | Mapping[Literal["top", "from"], int]
"""As `adapter.layers` has it: all, the k uppermost, or those from number i on."""


def decoder_layers(model: Any) -> nn.ModuleList:
    """The stack of layers of a causal language model, the lowest first."""
    return layer_stack(model)[1]


def layer_stack(model: Any) -> tuple[str, nn.ModuleList]:
    """The name of the stack of layers within its own module (`layers`, `h`), and the stack.

    Raises:
        UserError: If the model has none.
    """
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name.rpartition(".")[2], module
    raise UserError(f"A model of type {model.config.model_type} has no stack of {count} layers.")


def first_learning(model: Any, layers: Layers) -> int:
    """The number of the lowest layer that learns, from 0.

    Raises:
        UserError: If the model has not so many layers.
    """
    if layers == "all":
        return 0
    count = len(decoder_layers(model))
    ((how, number),) = layers.items()
    if number > count or (how == "from" and number == count):
        last = count if how == "top" else count - 1
        raise UserError(f"adapter.layers: {how}: {number}: this model has {count} layers; at most {last}.")
    return count - number if how == "top" else number


def parameters_below(model: Any, first: int) -> list[nn.Parameter]:
    """The parameters on which what enters a layer depends: embeddings and the layers below it."""
    return [parameter for module in modules_below(model, first) for parameter in module.parameters()]


def modules_below(model: Any, first: int) -> list[nn.Module]:
    """The modules that make what enters a layer: the layers below it, and what embeds.

    In the module that holds the layers only norms come after them; what embeds has a name that says so.
    """
    _, stack = layer_stack(model)
    holder = next(module for module in model.modules() if stack in module.children())
    found = list(stack[:first])
    for name, module in holder.named_children():
        after = "emb" not in name and ("norm" in name or name.startswith("ln"))
        if module is not stack and not after:
            found.append(module)
    return found
