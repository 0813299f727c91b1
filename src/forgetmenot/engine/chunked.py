"""Attention over a trie in chunks of queries, each against those keys alone that one of them may attend to.

In depth-first order a node attends to itself and its ancestors, so the queries a … b−1 need the nodes
a … b−1 and the ancestors of a: a chunk and one branch, however large the trie, where a dense mask costs all
n keys for each query. Attention so costs each node the same in packs of any size. All chunks are one call, of
PyTorch's fused kernel or, where it is the faster, of `forgetmenot.engine.attended`; what is left out is what
the mask would have hidden.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forgetmenot.engine.attended import attend, is_faster

CHUNK = 64
"""Queries at a time. Fewer leave out more; of 32, 64 and 128 this was the fastest or near it."""

CHUNKED_OVER = "chunked_over_"
"""Begins the name of a kernel that takes tries in chunks and gives other masks to the one named after."""


class ChunkMask(Tensor):
    """An additive mask [chunks, 1, queries, keys], which Transformers hands on to the kernel as it is.

    Attributes:
        keys: Which keys each chunk takes [chunks, keys].
    """

    keys: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def chunk_mask(end: Tensor, depth: Tensor, window: int | None, prefix: int) -> ChunkMask:
    """The mask of a trie in chunks of queries.

    Args:
        end: The trie's subtree ends [n].
        depth: The trie's depths [n], counted from the beginning of the prefix.
        window: Attend only where depth[i] − depth[j] < window.
        prefix: How many keys are before the trie, which all of it attends to.
    """
    n, device = len(end), end.device
    chunks = -(-n // CHUNK)
    size = -(-n // chunks)
    index = torch.arange(n, device=device)
    first = size * torch.arange(chunks, device=device)[:, None]
    needed = (index < first + size) & (end > first)
    # Those that are needed come first; whatever fills a row up is hidden by the same rule as in a dense mask.
    keys = needed.int().argsort(dim=1, descending=True, stable=True)[:, : int(needed.sum(1).max())]
    queries = (first + torch.arange(size, device=device))[:, :, None]
    allowed = (keys[:, None] <= queries) & (queries < end[keys][:, None])
    allowed = F.pad(allowed, (prefix, 0), value=True)
    if window is not None:
        before = torch.arange(prefix, device=device).expand(chunks, -1)
        depths = torch.cat([before, depth[keys]], dim=1)
        allowed &= depth[queries.clamp(max=n - 1)] - depths[:, None] < window
    allowed[:, :, 0] |= queries[:, :, 0] >= n  # what fills the last chunk up must see something
    mask = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, float("-inf"))[:, None]
    found: ChunkMask = Tensor._make_subclass(ChunkMask, mask)
    found.keys = torch.cat([torch.arange(prefix, device=device).expand(chunks, -1), keys + prefix], dim=1)
    return found


def _chunked_over_sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    if not isinstance(attention_mask, ChunkMask):
        plain: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return plain
    if options.get("softcap") is not None or options.get("position_bias") is not None:
        raise NotImplementedError("attention in chunks knows no soft cap and no position bias")
    chunks, _, size, _ = attention_mask.shape
    n = query.shape[2]
    filled = F.pad(query, (0, 0, 0, chunks * size - n))[0]
    queries = filled.reshape(filled.shape[0], chunks, size, -1).transpose(0, 1)
    keys, values = _taken(key, attention_mask.keys), _taken(value, attention_mask.keys)
    mask, dropout = attention_mask.as_subclass(Tensor), options.get("dropout", 0.0)
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    if dropout == 0 and is_faster(queries, mask):
        attended = attend(queries, keys, values, mask, scale)
    else:
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    return attended.transpose(1, 2).flatten(0, 1)[None, :n].contiguous(), None


def _taken(values: Tensor, keys: Tensor) -> Tensor:
    """Each chunk's keys or values [chunks, heads, keys, head size] out of all [1, heads, n, head size].

    As a look-up in a table of rows, whose gradient has a fast kernel on CPUs.
    """
    _, heads, _, size = values.shape
    table = values[0].transpose(0, 1).flatten(1)
    taken = F.embedding(keys, table)
    return taken.view(*keys.shape, heads, size).transpose(1, 2)


AttentionInterface.register(f"{CHUNKED_OVER}sdpa", _chunked_over_sdpa)
AttentionMaskInterface.register(f"{CHUNKED_OVER}sdpa", sdpa_mask)
