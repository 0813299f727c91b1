"""What a piece of work makes the processor multiply: counted while it runs, in the same way for both sides."""

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
    """Count what the model computes inside the block; the numbers are there when it ends.

    The products are seen as they reach the kernels, so that a head which is multiplied in tiles, outside of
    its module, or once more in the backward pass is seen too.
    """
    work = Work()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    vocabulary, width = head.weight.shape
    widths = {layer.out_features for layer in model.modules() if isinstance(layer, torch.nn.Linear)}

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
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(out: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(out, query, key, value))

    # PyTorch's counter does not know the CPU's fused attention.
    formulas = {
        aten.mm: mm,
        aten.addmm: addmm,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }

    def count_positions(_module: Any, inputs: tuple[Any, ...]) -> None:
        work.positions += inputs[0].numel()

    handle = embeddings.register_forward_pre_hook(count_positions)
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    try:
        with counter:
            yield work
    finally:
        handle.remove()
    work.flops = counter.get_total_flops()
