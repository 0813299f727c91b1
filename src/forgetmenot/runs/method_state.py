"""A method's state on disk: tensors as safetensors, the rest as JSON."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from forgetmenot.errors import UserError
from forgetmenot.methods import Method
from forgetmenot.record.damage import damaged
from forgetmenot.record.seal import check_file, read_json

TENSORS, PLAIN = "method.safetensors", "method.json"


def save_method_state(method: Method, folder: Path) -> int:
    """Write what `method.state_dict()` gives beside a stage's weights; returns how many bytes that takes.

    Raises:
        UserError: If it holds weights that are sharded.
    """
    state = method.state_dict()
    if any(isinstance(value, DTensor) for value in state.values()):
        raise UserError(
            f"The method {type(method).__name__} keeps weights of its own, which cannot be sharded; "
            "launch without --use_fsdp."
        )
    tensors = {name: value.contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in state.items() if name not in tensors}
    save_file(tensors, folder / TENSORS)
    (folder / PLAIN).write_text(json.dumps(plain), encoding="utf-8")
    held = sum(value.numel() * value.element_size() for value in tensors.values())
    return held + ((folder / PLAIN).stat().st_size if plain else 0)


def load_method_state(method: Method, folder: Path) -> None:
    """Give a method back what it had at the end of a stage.

    Raises:
        UserError: It is not there, or damaged.
    """
    state = read_json(folder / PLAIN, dict)
    check_file(folder / TENSORS)
    if state is None:
        raise damaged(folder / PLAIN, "it is missing")
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise damaged(folder / TENSORS, f"it cannot be read ({error})") from error
    method.load_state_dict({**state, **tensors})
