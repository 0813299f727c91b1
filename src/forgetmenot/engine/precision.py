"""In which dtype activations are computed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device, width: int) -> Precision:
    """Resolve `auto`: bf16 where the processor multiplies it natively and the model is wide enough to gain.

    On CPU models narrower than 512 stay in fp32: they are fast enough, and fp32 answers do not depend on how
    sequences are packed. The bound is our choice; `benchmarks/precision.py` measures what bf16 gains.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native and width >= 512 else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which the model computes."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def activation_dtype(model: Any) -> torch.dtype:
    """The dtype that the model computes in here: autocast's within its context, else its weights'."""
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    dtype: torch.dtype = model.dtype
    return dtype


@contextmanager
def rounded_once(model: Any, precision: Precision) -> Iterator[None]:
    """Keep frozen linear weights, except the LM head, in the precision, and restore them afterwards.

    Autocast keeps what it has rounded only of weights that learn; the others it would round in every pass
    again, which takes longer than to multiply by them. The numbers are the same. The head runs in fp32.
    """
    held = []
    try:
        if precision == "bf16":
            head = model.get_output_embeddings()
            head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
            parts = list(model.modules())
            kept = {id(part.weight) for part in parts if isinstance(part, torch.nn.Embedding)}
            kept.add(id(head.weight))  # another model's head within this one may be its embeddings
            for module in parts:
                if isinstance(module, torch.nn.Linear) and id(module.weight) not in kept:
                    weight = module.weight
                    if weight.dtype == torch.float32 and not weight.requires_grad:
                        held.append((weight, weight.data))
                        weight.data = weight.data.bfloat16()
        yield
    finally:
        for weight, values in held:
            weight.data = values
