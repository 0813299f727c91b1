"""Models: load one, choose what learns, keep its weights; the bundled quickstart model."""

from forgetmenot.models.adapt import (
    USED_BY,
    AdapterSettings,
    adapt,
    answering_with,
    check_targets,
    finish_stage,
    folded,
)
from forgetmenot.models.load import BUNDLED, Loaded, ModelSettings, load_model, without_bars
from forgetmenot.models.quantize import check_quantization, compute_in, merged
from forgetmenot.models.soft_prompt import soft_prompt, with_parts
from forgetmenot.models.weights import has_weights, load_weights, save_weights

__all__ = [
    "BUNDLED",
    "USED_BY",
    "AdapterSettings",
    "Loaded",
    "ModelSettings",
    "adapt",
    "answering_with",
    "check_quantization",
    "check_targets",
    "compute_in",
    "finish_stage",
    "folded",
    "has_weights",
    "load_model",
    "load_weights",
    "merged",
    "save_weights",
    "soft_prompt",
    "with_parts",
    "without_bars",
]
