"""The trie's interval test as the attention mask that each architecture takes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from forgetmenot.engine.flex import FLEX_OVER, block_mask

Mask = Tensor | BlockMask | dict[str, Tensor | BlockMask]


def attention_mask(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype) -> Mask:
    """Build the 4-D mask of a trie for a Transformers model.

    Position i attends to j iff j ≤ i < end[j]; in a sliding window also depth[i] − depth[j] < window.

    Args:
        config: The model's text configuration.
        end: The trie's subtree ends [n], on the model's device.
        depth: The trie's depths [n].
        dtype: The activations' dtype, for models that add the mask to the attention scores.

    Returns:
        A mask [1, 1, n, n]; for a model whose layers differ, one for each layer type. Boolean for SDPA;
        additive (0 or the dtype's minimum) for eager attention; of blocks for FlexAttention.

    Raises:
        NotImplementedError: For a layer type that is neither full nor sliding attention.
    """
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    unknown = layer_types - {"full_attention", "sliding_attention"}
    if unknown:
        raise NotImplementedError(f"layers of type {', '.join(sorted(unknown))} take no trie mask")

    def build(window: int | None) -> Tensor | BlockMask:
        if config._attn_implementation.startswith(FLEX_OVER):
            return block_mask(end, depth, window)
        allowed = _dense(end, depth, window)[None, None]
        if config._attn_implementation.endswith("eager"):
            return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
        return allowed

    if "sliding_attention" in layer_types:
        windows = {"full_attention": None, "sliding_attention": window}
        return {kind: build(windows[kind]) for kind in layer_types}
    return build(None if layer_types else window)


def _dense(end: Tensor, depth: Tensor, window: int | None) -> Tensor:
    """Whether i attends to j [n, n]."""
    index = torch.arange(len(end), device=end.device)
    allowed = (index[None, :] <= index[:, None]) & (index[:, None] < end[None, :])
    return allowed if window is None else allowed & (depth[:, None] - depth[None, :] < window)
