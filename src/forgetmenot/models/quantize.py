"""Weights in four bits under LoRA adapters by bitsandbytes (QLoRA, Dettmers et al., arXiv 2305.14314)."""

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel

from forgetmenot.errors import UserError
from forgetmenot.models.adapt import kind_of
from forgetmenot.models.adapters.lora import LORA
from forgetmenot.models.settings import AdapterSettings, ModelSettings


def check_quantization(model: ModelSettings, adapter: AdapterSettings) -> None:
    """Check the quantization against the trained weights and the installed packages.

    Raises:
        UserError: If quantized weights would have to change, or bitsandbytes is not there.
    """
    if model.quantization is None:
        return
    base_learns = kind_of(adapter).uses.base_learns
    if base_learns or adapter.per_stage == "merge":
        wrong = f"kind: {adapter.kind}" if base_learns else "per_stage: merge"
        raise UserError(
            f"adapter.{wrong} changes weights that model.quantization has rounded to four bits; "
            "use kind: lora with per_stage: continue or new."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "model.quantization needs bitsandbytes, which is not installed: "
            "pip install 'forgetmenot[quantization]'."
        )


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Let quantized layers compute in a dtype, and decode their weights to it, in training as in scoring."""
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None:
            layer.compute_dtype = state.dtype = dtype
            # Scoring on a CPU with AVX512-BF16 would else repack the weights, and round their scales to bf16.
            layer.support_avx512bf16_for_cpu = False


def merged(model: Any) -> Any:
    """A plain model that answers as this one: adapters become part of the weights, if need be decoded."""
    if getattr(model, "is_loaded_in_4bit", False):
        model = _decoded(model)
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def _decoded(model: Any) -> Any:
    """The model with its quantized layers as plain ones in fp32, and its adapters beside them."""
    compute_in(model, torch.float32)
    if not isinstance(model, PeftModel):
        return model.dequantize()
    with TemporaryDirectory() as folder:
        LORA.save(model, Path(folder))
        return LORA.load(model.unload().dequantize(), Path(folder), trainable=False)
