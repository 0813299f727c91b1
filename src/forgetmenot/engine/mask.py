"""The trie's interval test as the attention mask that each architecture takes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from forgetmenot.engine.chunked import CHUNK, CHUNKED_OVER, chunk_mask
from forgetmenot.engine.flex import FLEX_OVER, block_mask

Mask = Tensor | BlockMask | dict[str, Tensor | BlockMask]  # a ChunkMask is a tensor


def attention_mask(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int = 0) -> Mask:
    """Build the 4-D mask of a trie for a Transformers model.

    Position i attends to j iff j ≤ i < end[j]; in a sliding window also depth[i] − depth[j] < window.

    Args:
        config: The model's text configuration.
        end: The trie's subtree ends [n], on the model's device.
        depth: The trie's depths [n], counted from the beginning of the prefix.
        dtype: The activations' dtype, for models that add the mask to the attention scores.
        prefix: How many positions are before the trie, which all of it attends to.

    Returns:
        A mask [1, 1, n, prefix + n]; for a model whose layers differ, one for each layer type. Boolean for
        SDPA; additive (0 or the dtype's minimum) for eager attention; of blocks for FlexAttention; in chunks,
        of another shape, where the kernel takes these and there is more than one.

    Raises:
        NotImplementedError: For a layer type that is neither full nor sliding attention, and for
            FlexAttention behind a prefix.
    """
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    unknown = layer_types - {"full_attention", "sliding_attention"}
    if unknown:
        raise NotImplementedError(f"layers of type {', '.join(sorted(unknown))} take no trie mask")

    def build(window: int | None) -> Tensor | BlockMask:
        if config._attn_implementation.startswith(FLEX_OVER):
            if prefix:
                raise NotImplementedError("blocks of a mask are made for tries without a prefix")
            return block_mask(end, depth, window)
        if config._attn_implementation.startswith(CHUNKED_OVER) and len(end) > CHUNK:
            return chunk_mask(end, depth, window, prefix)
        allowed = dense_mask(end, depth, window, prefix)[None, None]
        if config._attn_implementation.endswith("eager"):
            return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
        return allowed

    if "sliding_attention" in layer_types:
        windows = {"full_attention": None, "sliding_attention": window}
        return {kind: build(windows[kind]) for kind in layer_types}
    return build(None if layer_types else window)


def dense_mask(end: Tensor, depth: Tensor, window: int | None, prefix: int) -> Tensor:
    """Whether i attends to j, behind a prefix to which all attend [n, prefix + n]."""
    index = torch.arange(len(end), device=end.device)
    allowed = (index[None, :] <= index[:, None]) & (index[:, None] < end[None, :])
    allowed = F.pad(allowed, (prefix, 0), value=True)
    if window is None:
        return allowed
    columns = torch.cat([torch.arange(prefix, device=end.device), depth])
    return allowed & (depth[:, None] - columns[None, :] < window)
