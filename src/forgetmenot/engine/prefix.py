"""The common prefix of all sequences, computed once: its keys and values, which every pack continues."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from forgetmenot.engine.composed import Positions, augmented
from forgetmenot.engine.mask import attention_mask


@dataclass(frozen=True)
class Prefix:
    """The keys and values of a common prefix, for each layer [1, heads, length, head size].

    Only where no gradient is needed: training shares prefixes within its packs.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    def cache(self) -> DynamicCache:
        """A cache that holds the prefix and that one forward pass may append to.

        Plain layers also where the model's own would forget what has left a sliding window: the mask holds
        the window, and a window ends elsewhere in each branch of a trie.
        """
        cache = DynamicCache()
        for keys, values in self.layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        return cache


@torch.no_grad()
def compute_prefix(model: Any, tokens: tuple[int, ...], dtype: torch.dtype) -> Prefix:
    """Put a prefix through the model and keep what later positions attend to.

    Args:
        model: A model that takes the trie's mask.
        tokens: The prefix; not empty.
        dtype: The activations' dtype.
    """
    device = next(model.parameters()).device
    n = len(tokens)
    positions = torch.arange(n, device=device)
    cache = DynamicCache()
    end = torch.full_like(positions, n)
    trie = Positions(torch.tensor([tokens], device=device), positions[None], end)
    with augmented(model, trie, cache):
        model(
            input_ids=trie.tokens,
            attention_mask=attention_mask(model.config.get_text_config(), end, positions, dtype),
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))
