"""Attention kernels: which one a model uses for tries, and how it is switched to it."""

from typing import Any, Literal, get_args

import torch

from forgetmenot.engine.chunked import CHUNKED_OVER
from forgetmenot.engine.flex import FLEX_OVER
from forgetmenot.errors import UserError
from forgetmenot.models.composition import taken_apart

Attention = Literal["flex", "chunked", "dense"]
"""By FlexAttention's blocks, in chunks of queries, or by an n × n mask for the model's own kernel."""

OVER: dict[Attention, str] = {"flex": FLEX_OVER, "chunked": CHUNKED_OVER, "dense": ""}


def choose_attention(wanted: Literal["auto", "flex", "dense"], device: torch.device, model: Any) -> Attention:
    """Resolve `auto`: FlexAttention on a CUDA device, chunks elsewhere, for the models that take them.

    Raises:
        UserError: If `flex` is wanted and cannot be had.
    """
    if wanted == "flex" and device.type != "cuda":
        raise UserError(
            "training.attention: flex needs a CUDA device, since FlexAttention computes no gradients "
            "elsewhere; set auto or dense."
        )
    if wanted == "flex" and not model._supports_flex_attn:
        raise UserError(
            f"training.attention: Transformers has no FlexAttention for a {model.config.model_type}; "
            "set auto or dense."
        )
    if wanted == "dense":
        return "dense"
    fast: Attention = "flex" if device.type == "cuda" else "chunked"
    return fast if _takes(model, fast, own_kernel(model)) else "dense"


def use_attention_of(anchor: Any, model: Any, kernel: str) -> None:
    """Let a model within an anchor mask tries as this does, if it can; else by an n × n mask.

    Args:
        anchor: Whose way that is.
        model: The model within it.
        kernel: What this computes attention with where nothing is a trie.
    """
    attention = attention_of(anchor)
    wanted = (OVER[attention] if _takes(model, attention, kernel) else "") + kernel
    if model.config._attn_implementation != wanted:
        model.set_attn_implementation(wanted)


def _takes(model: Any, attention: Attention, kernel: str) -> bool:
    if attention == "flex":
        return bool(model._supports_flex_attn)
    backend = model._supports_attention_backend  # else it has SDPA in a class of its own
    return attention == "chunked" and bool(backend) and kernel == "sdpa"


def use_attention(model: Any, attention: Attention) -> None:
    """Let the model mask tries in this way from now on."""
    if attention != attention_of(model):
        with taken_apart(model):  # Transformers would give it to every model within this one
            model.set_attn_implementation(OVER[attention] + own_kernel(model))


def attention_of(model: Any) -> Attention:
    """How the model masks tries."""
    kernel = str(model.config._attn_implementation)
    return next(kind for kind in get_args(Attention) if kernel.startswith(OVER[kind]))


def own_kernel(model: Any) -> str:
    """What the model computes attention with where nothing is a trie."""
    return str(model.config._attn_implementation).removeprefix(OVER[attention_of(model)])
