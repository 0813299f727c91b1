"""The mask of a small trie, cell by cell."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from forgetmenot.engine.mask import attention_mask

# (4,)  (7, 5)  (7, 8, 9) as a forest: 4 | 7 → 5 | 7 → 8 → 9
END = torch.tensor([1, 5, 3, 5, 5])
DEPTH = torch.tensor([0, 0, 1, 1, 2])
FULL = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 1, 1]]
WINDOW_OF_2 = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 1]]


def mask(*, kernel: str = "sdpa", dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    return attention_mask(SimpleNamespace(_attn_implementation=kernel, **config), END, DEPTH, dtype)


def test_one_mask_for_a_model_of_one_kind_of_layer() -> None:
    assert mask().dtype == torch.bool
    assert mask().shape == (1, 1, 5, 5)
    assert mask()[0, 0].int().tolist() == FULL
    assert mask(sliding_window=None)[0, 0].int().tolist() == FULL
    assert mask(sliding_window=2)[0, 0].int().tolist() == WINDOW_OF_2


def test_a_window_that_no_layer_uses_is_no_window() -> None:
    built = mask(sliding_window=2, layer_types=["full_attention", "full_attention"])
    assert built[0, 0].int().tolist() == FULL


def test_one_mask_for_each_kind_of_layer() -> None:
    built = mask(sliding_window=2, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    assert {kind: m[0, 0].int().tolist() for kind, m in built.items()} == {
        "full_attention": FULL,
        "sliding_attention": WINDOW_OF_2,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_attention_gets_a_mask_to_add(dtype: torch.dtype) -> None:
    built = mask(kernel="eager", dtype=dtype)
    assert built.dtype == dtype
    assert (built[0, 0] == 0).int().tolist() == FULL
    assert built[built != 0].unique().tolist() == [torch.finfo(dtype).min]


def test_layers_of_another_kind_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="linear_attention"):
        mask(layer_types=["full_attention", "linear_attention"])
