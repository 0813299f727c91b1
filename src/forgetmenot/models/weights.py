"""A stage's weights on disk: `adapter/` in PEFT's layout, `model/` in Transformers', or `prompt/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM

from forgetmenot.errors import UserError
from forgetmenot.models.load import no_progress_bars
from forgetmenot.models.soft_prompt import load_soft_prompt, save_soft_prompt, soft_prompt


def save_weights(model: Any, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write adapter/, model/ or prompt/ under a stage's folder, as safetensors.

    Args:
        model: The model.
        folder: The stage's folder.
        weights: The full weights of a model that holds only its shard of them.
    """
    with no_progress_bars():
        if isinstance(model, PeftModel):
            model.save_pretrained(folder / "adapter", save_embedding_layers=False)
        elif (prompt := soft_prompt(model)) is not None:
            save_soft_prompt(prompt, folder / "prompt")
        else:
            model.save_pretrained(folder / "model", state_dict=weights)


def has_weights(folder: Path) -> bool:
    """Whether a stage's folder still holds weights."""
    return any((folder / name).is_dir() for name in ("adapter", "model", "prompt"))


def load_weights(base: Any, folder: Path, *, trainable: bool) -> Any:
    """The model as the stage left it.

    Args:
        base: A fresh base model: adapters are put into it; with full weights only its device, dtype and
            configuration are used.
        folder: The stage's folder.
        trainable: Whether training goes on from here (only the last adapter learns).

    Raises:
        UserError: If the folder holds no weights, or damaged ones.
    """
    try:
        if (folder / "adapter").is_dir():
            return _load_adapters(base, folder / "adapter", trainable=trainable)
        if (folder / "prompt").is_dir():
            return load_soft_prompt(base, folder / "prompt").requires_grad_(False)
        if (folder / "model").is_dir():
            device = next(base.parameters()).device
            with no_progress_bars():
                model = AutoModelForCausalLM.from_pretrained(
                    folder / "model", config=base.config, dtype=base.dtype, use_safetensors=True
                )
            return model.to(device).eval()
    except (SafetensorError, OSError) as error:
        raise UserError(f"The weights in {folder} are damaged ({error}).") from error
    raise UserError(
        f"{folder} holds no weights any more; only a run with `checkpoints: all` keeps those of every stage."
    )


def _load_adapters(base: Any, folder: Path, *, trainable: bool) -> PeftModel:
    """The first adapter lies in the folder itself, those of later stages in folders of their own."""
    model = PeftModel.from_pretrained(base, folder, is_trainable=trainable)
    later = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    for path in later:
        model.load_adapter(path, adapter_name=path.name, is_trainable=trainable)
    if later:
        names = ["default", *(path.name for path in later)]
        model.base_model.set_adapter(names)
        for parameter, value in model.named_parameters():
            value.requires_grad_(trainable and f".{names[-1]}." in parameter)
    return model.eval()
