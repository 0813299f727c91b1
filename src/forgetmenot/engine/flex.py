"""FlexAttention over a trie: the interval test as a block mask, so that attention skips unrelated branches.

A trie's mask is then a `BlockMask`; every other forward pass (padded rows, generation) keeps the model's own
kernel.
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

BLOCK = 128  # FlexAttention's own
FLEX_OVER = "flex_over_"
"""Begins the name of a kernel that gives block masks to FlexAttention and others to the one named after."""


def block_mask(end: Tensor, depth: Tensor, window: int | None) -> BlockMask:
    """The mask of a trie in blocks of 128 × 128, from the extremes of `end` and `depth` in each block.

    Blocks above the diagonal are empty. Below it every query comes after every key, so that a block is full
    where all its keys' subtrees reach past its last query, and empty where none reaches its first; with a
    window also where the depths are all, or never, near enough (the last by a bound: such a block may be kept
    though it is empty). What remains is tested node by node, by the same rule as the dense mask.

    Args:
        end: The trie's subtree ends [n].
        depth: The trie's depths [n].
        window: Attend only where depth[i] − depth[j] < window.
    """
    n = len(end)
    blocks = -(-n // BLOCK)
    first = BLOCK * torch.arange(blocks, device=end.device)
    below = first[:, None] > first[None, :]

    def per_block(values: Tensor, fill: int) -> Tensor:
        return F.pad(values, (0, blocks * BLOCK - n), value=fill).view(blocks, BLOCK)

    touched = below & (per_block(end, 0).amax(1)[None, :] > first[:, None])
    full = below & (per_block(end, n).amin(1)[None, :] >= first[:, None] + BLOCK)
    if window is not None:
        deepest, shallowest = per_block(depth, 0).amax(1), per_block(depth, n).amin(1)
        touched &= shallowest[:, None] - deepest[None, :] < window
        full &= deepest[:, None] - shallowest[None, :] < window
    diagonal = torch.eye(blocks, dtype=torch.bool, device=end.device)
    end, depth = end.int(), depth.int()

    def allowed(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        in_subtree = (j <= i) & (i < end[j])
        return in_subtree if window is None else in_subtree & (depth[i] - depth[j] < window)

    return BlockMask.from_kv_blocks(
        *_listed((touched & ~full) | diagonal),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=allowed,
        seq_lengths=(n, n),
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks how many are set [1, 1, rows], and their columns first [1, 1, rows, columns]."""
    columns = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).int()[None, None], columns.int()[None, None]


def _flex_over_sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    attend = _flex if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    return attend(module, query, key, value, attention_mask, **options)


def _flex_over_eager(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    own = sys.modules[type(module).__module__].eager_attention_forward  # each architecture has its own
    attend = _flex if isinstance(attention_mask, BlockMask) else own
    return attend(module, query, key, value, attention_mask, **options)


def _flex(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: BlockMask, **options: Any
) -> tuple[Tensor, Tensor | None]:
    # Autocast, which brings SDPA's inputs to one dtype, knows nothing of FlexAttention, and rotary embeddings
    # or a norm in fp32 have left query and key in fp32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    attended: tuple[Tensor, Tensor | None] = flex_attention_forward(
        module, query, key, value, attention_mask, **options
    )
    return attended


AttentionInterface.register(f"{FLEX_OVER}sdpa", _flex_over_sdpa)
AttentionInterface.register(f"{FLEX_OVER}eager", _flex_over_eager)
AttentionMaskInterface.register(f"{FLEX_OVER}sdpa", sdpa_mask)
AttentionMaskInterface.register(f"{FLEX_OVER}eager", eager_mask)
