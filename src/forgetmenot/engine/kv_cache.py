"""Keys and values of a batch that is being written: they grow in place, and rows leave when they end."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from forgetmenot.engine.prefix import Prefix

GROWTH = 64  # positions that are added when a buffer is full


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [rows, heads, length, head size], a view of a larger buffer.

    Transformers' own layer copies all of them for every token. Plain also where a model's layers slide: the
    mask holds the window.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append, and give all."""
        length, more = self.get_seq_length(), key_states.shape[-2]
        if not self._buffers or length + more > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, length + more + GROWTH)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length : length + more] = states
        self._view(length + more)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length = self.get_seq_length()
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._view(length)

    def _grow(self, key_states: Tensor, value_states: Tensor, room: int) -> None:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        larger = [s.new_empty(*s.shape[:2], room, s.shape[-1]) for s in (key_states, value_states)]
        for new, old in zip(larger, (self.keys, self.values), strict=True):
            if length:
                new[:, :, :length] = old
        self._buffers = larger

    def _view(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def growing_cache(prefix: Prefix | None, rows: int) -> DynamicCache:
    """An empty cache for a batch, or one that begins with a prefix which all its rows share."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    for keys, values in prefix.layers if prefix is not None else ():
        layer = GrowingLayer()
        layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        cache.layers.append(layer)
    return cache


def keep_rows(cache: DynamicCache, rows: Sequence[int], device: torch.device) -> None:
    """Let the other rows go."""
    cache.batch_select_indices(torch.tensor(rows, device=device))
