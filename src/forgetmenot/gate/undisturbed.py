"""Asking a model in the middle of its training, without a trace in the training that goes on."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from forgetmenot.engine.attention import own_kernel
from forgetmenot.engine.head import replaced_forward


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Put back afterwards whatever training depends on beside the weights, which the engine never changes.

    These are the random states of Python, NumPy and PyTorch, the mode of every module, the kernels of
    attention, autocast with the weights that it keeps rounded, and the mixed-precision `forward` that
    Accelerate has put on the model: within, the engine alone says in which precision is computed.

    Args:
        model: A Transformers model, perhaps with PEFT adapters inside.
    """
    devices = {parameter.device for parameter in model.parameters()}
    modes = [(module, module.training) for module in model.modules()]
    kernels = [(config, config._attn_implementation_internal) for config in _configs(model)]
    plain = vars(model).get("_original_forward")
    try:
        with ExitStack() as within:
            cuda = sorted(device.index for device in devices if device.type == "cuda")
            within.enter_context(same_random_states(cuda))
            for kind in {device.type for device in devices}:
                within.enter_context(torch.autocast(kind, enabled=False))
            if plain is not None:
                within.enter_context(replaced_forward(model, plain))
            yield
    finally:
        torch.clear_autocast_cache()  # what was rounded within has no gradient
        for module, training in modes:
            module.training = training
        for config, kernel in kernels:
            config._attn_implementation_internal = kernel


@contextmanager
def same_random_states(cuda: Sequence[int] = ()) -> Iterator[None]:
    """Let what is done within draw nothing from what training draws from.

    Args:
        cuda: The CUDA devices whose states are kept as well.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def use_kernel_for_tries(model: Any) -> None:
    """Take a kernel to which masks can be given; that of Flash Attention, for one, takes none.

    It is what the model would be loaded with to be asked outside of training.
    """
    if own_kernel(model) not in ("sdpa", "eager"):
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")


def _configs(model: Any) -> list[Any]:
    """All configs that say which kernel of attention some part of a model uses, each once."""
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    found: dict[int, Any] = {}
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            parts = [getattr(config, key, None) for key in config.sub_configs]
            waiting += [part for part in parts if part is not None]
    return list(found.values())
