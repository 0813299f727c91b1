"""A LoRA adapter in PEFT's layout, read so that every key and every tensor is accounted for.

PEFT itself warns where tensors are missing, passes over those that it does not know, and unpickles a file
where there are no safetensors.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from forgetmenot.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

_FLOATS = ("F64", "F32", "F16", "BF16")

# What a run sets, and what it does not matter to: all else of an adapter of a run is as PEFT has it.
_SET = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules"} | {
    *("layers_to_transform", "layers_pattern", "base_model_name_or_path", "revision", "inference_mode"),
    *("peft_version", "megatron_core"),
}


def read_config(folder: Path) -> dict[str, Any]:
    """What an adapter is.

    Raises:
        UserError: Its config is not there, none of LoRA, or has a rank that is none.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}).") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is no config of a PEFT adapter: it holds no keys.")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA can be read.")
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)  # those of PEFT, where they are left out
    if type(rank) is not int or rank < 1:
        raise UserError(f"{path}: r is {rank!r}, where a whole number above 0 belongs.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UserError(f"{path}: lora_alpha is {alpha!r}, where a number belongs.")
    return config


def check_plain(folder: Path) -> None:
    """See that an adapter is one that a run of ours writes: plain LoRA.

    Raises:
        UserError: If a key has another value.
    """
    config, usual = read_config(folder), LoraConfig(task_type="CAUSAL_LM").to_dict()
    for key, value in config.items():
        if key in usual and key not in _SET and value != usual[key]:
            raise UserError(
                f"{folder / CONFIG}: {key} is {value!r}, where a run writes {usual[key]!r}; put the file "
                "back that the run wrote, or start the run over with --fresh."
            )


def read_adapter(model: Any, folder: Path, name: str | None = None, *, trainable: bool = False) -> PeftModel:
    """Put an adapter on a model.

    Args:
        model: The plain model; or one with adapters, which gets another.
        folder: The adapter's.
        name: What it is called on a model that has others.
        trainable: Whether it learns.

    Raises:
        UserError: If its files are damaged or pickled, or do not fit the model one by one; names the file.
    """
    read_config(folder)
    there = _tensors(folder)
    path = folder / WEIGHTS
    try:
        with warnings.catch_warnings():  # what they say of the tensors is an error below
            warnings.simplefilter("ignore")
            if name is None:
                adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
            else:
                model.load_adapter(folder, adapter_name=name, is_trainable=trainable)
                adapted = model
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        heading, *lines = (line.strip() for line in str(error).strip().splitlines() or [repr(error)])
        first = (lines[0] if lines and heading.endswith(":") else heading).rstrip(".: ")
        raise UserError(f"The adapter {folder} does not fit its model ({first}).") from error
    of = {"adapter_name": name or "default"}
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False, **of).keys()
    # Below an adapter of the embedding or the head PEFT saves the whole layer too.
    known = get_peft_model_state_dict(adapted, save_embedding_layers=True, **of).keys()
    for how, names, which in (
        ("lacks", wanted - there, "that its model has"),
        ("has", there - known, "that its model does not know"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{path} {how} weights {which} ({min(names)}{more}).")
    return adapted


def _tensors(folder: Path) -> set[str]:
    """The names of an adapter's tensors."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (
            f" {PICKLE} is a pickle, which can run anything and is not read." * (folder / PICKLE).exists()
        )
        raise UserError(f"{folder} has no {WEIGHTS}; save the adapter as safetensors.{pickled}")
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged, or no safetensors ({error}).") from error
    for name, kind in sorted(kinds.items()):
        if kind not in _FLOATS:
            raise UserError(f"{path}: {name} holds {kind}, where weights are floating-point numbers.")
    return names
