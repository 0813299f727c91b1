"""Counts of the arithmetic that a piece of work makes the processor do, the same for both sides."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
Shape = tuple[int, ...]


@dataclass
class Work:
    """The arithmetic of a piece of work.

    Attributes:
        positions: Tokens that went into the model, padding included.
        head_rows: Positions multiplied by the LM head, recomputation in the backward pass included.
        flops: Of all matrix products, attention included: twice the multiplications.
    """

    positions: int = 0
    head_rows: float = 0.0
    flops: int = 0


@contextmanager
def counted(model: Any) -> Iterator[Work]:
    """Count what a model of these shapes computes inside the block; the numbers are there when it ends.

    Look-ups and products are seen as they reach the kernels and known by their shapes, so that a head that is
    multiplied in tiles, outside of its module, or once more in the backward pass is seen too.
    """
    work = Work()
    vocabulary, width = model.get_output_embeddings().weight.shape
    widths = {layer.out_features for layer in model.modules() if isinstance(layer, torch.nn.Linear)}

    def look_up(table: Shape, tokens: Shape, *_: Any, **__: Any) -> int:
        work.positions += math.prod(tokens) if table == (vocabulary, width) else 0
        return 0

    def count_head(rows: Shape, weight: Shape) -> None:
        """Weigh a tile [width, some of the vocabulary] by its part of the vocabulary."""
        inner, outer = weight
        if inner == width and (outer == vocabulary or outer not in widths):
            work.head_rows += rows[0] * outer / vocabulary

    def mm(rows: Shape, weight: Shape, **_: Any) -> int:
        count_head(rows, weight)
        return 2 * rows[0] * rows[1] * weight[1]

    def addmm(_bias: Shape, rows: Shape, weight: Shape, **_: Any) -> int:
        return mm(rows, weight)

    def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def attention_backward(out: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(out, query, key, value))  # type: ignore[no-untyped-call]

    # PyTorch's counter does not know the CPU's fused attention, nor a product that is added in its place.
    formulas = {
        aten.embedding: look_up,
        aten.mm: mm,
        aten.addmm: addmm,
        aten.addmm_: addmm,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }

    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with counter:
        yield work
    work.flops = counter.get_total_flops()
