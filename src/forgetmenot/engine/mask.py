"""The trie's interval test as the attention mask that each architecture takes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Mask = Tensor | dict[str, Tensor]


def attention_mask(config: Any, end: Tensor, depth: Tensor, dtype: torch.dtype, prefix: int = 0) -> Mask:
    """Build the 4-D mask of a trie for a Transformers model.

    Position i attends to j iff j ≤ i < end[j]; in a sliding window also depth[i] − depth[j] < window.

    Args:
        config: The model's text configuration.
        end: The trie's subtree ends [n], on the model's device.
        depth: The trie's depths [n], counted from the beginning of the prefix.
        dtype: The activations' dtype, for models that add the mask to the attention scores.
        prefix: How many positions stand before the trie, which all of it attends to.

    Returns:
        A mask [1, 1, n, prefix + n]; for a model whose layers differ, one for each layer type. Boolean for
        SDPA; additive (0 or the dtype's minimum) for eager attention.

    Raises:
        NotImplementedError: For a layer type that is neither full nor sliding attention.
    """
    index = torch.arange(len(end), device=end.device)
    full = (index[None, :] <= index[:, None]) & (index[:, None] < end[None, :])
    full = F.pad(full, (prefix, 0), value=True)
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    unknown = layer_types - {"full_attention", "sliding_attention"}
    if unknown:
        raise NotImplementedError(f"layers of type {', '.join(sorted(unknown))} take no trie mask")

    def finish(allowed: Tensor) -> Tensor:
        allowed = allowed[None, None]
        if config._attn_implementation == "eager":
            return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
        return allowed

    masks = {"full_attention": full}
    if window is not None:
        columns = torch.cat([torch.arange(prefix, device=end.device), depth])
        masks["sliding_attention"] = full & (depth[:, None] - columns[None, :] < window)
    if "sliding_attention" in layer_types:
        return {kind: finish(masks[kind]) for kind in layer_types}
    return finish(full if layer_types else masks.get("sliding_attention", full))
