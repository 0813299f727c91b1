"""The lower part of a model, which never learns: a pass that ends above it, and one that begins there."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetmenot.engine.head import decoder, replaced_forward
from forgetmenot.models.layers import decoder_layers, modules_below

OF_NO_EFFECT = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config")
"""What a model's configuration says that no state depends on, or that the weights say."""


@dataclass(frozen=True)
class LowerStates:
    """What enters the first layer that learns, at each position of a pack.

    Attributes:
        first: The number of that layer.
        in_tuple: Whether the model's layers give what they give in a tuple.
        read: Gives the states, on the CPU [positions, width].
    """

    first: int
    in_tuple: bool
    read: Callable[[], Tensor]


class _Reached(Exception):  # noqa: N818 (no error: the way out of a pass)
    """The pass has come to the first layer that learns."""


@contextmanager
def ending_below(model: Any, first: int) -> Iterator[list[LowerStates]]:
    """Let a pass end where it enters a layer; a list to which it appends what enters there, row after row."""
    found: list[LowerStates] = []
    layers = decoder_layers(decoder(model))
    in_tuple: list[bool] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = (inputs[0] if inputs else named["hidden_states"]).flatten(0, 1)
        found.append(LowerStates(first, in_tuple[-1], lambda: states))
        raise _Reached

    hooks = [
        layers[first - 1].register_forward_hook(lambda *given: in_tuple.append(isinstance(given[-1], tuple))),
        layers[first].register_forward_pre_hook(stop, with_kwargs=True),
    ]
    try:
        yield found
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def beginning_at(model: Any, lower: LowerStates | None) -> Iterator[None]:
    """Let a pass begin with the first layer that learns: those below hand its states on, and compute nothing.

    The rest of the model's own way, from positions and masks to the logits, stays as it is.
    """
    with ExitStack() as replaced:
        if lower is not None:
            states = lower.read().to(next(model.parameters()).device, non_blocking=True)[None]
            given = (states,) if lower.in_tuple else states
            for layer in decoder_layers(decoder(model))[: lower.first]:
                replaced.enter_context(replaced_forward(layer, lambda *_, **__: given))
        yield


def digest_below(model: Any, first: int) -> str:
    """A hash of all that the states below a layer depend on: configuration, weights, buffers."""
    config = {k: v for k, v in model.config.get_text_config().to_dict().items() if k not in OF_NO_EFFECT}
    digest = hashlib.sha256(json.dumps([config, first], sort_keys=True, default=str).encode())
    for module in modules_below(decoder(model), first):
        for name, values in module.state_dict().items():  # with buffers, and the scales of quantized weights
            if isinstance(values, Tensor):
                digest.update(f"{name} {values.dtype}{tuple(values.shape)}".encode())
                flat = values.detach().cpu().contiguous().flatten()
                digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
