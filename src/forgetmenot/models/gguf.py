"""Models in one GGUF file, read by Transformers: weights of a few bits each become whole numbers again."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS
from transformers.utils import cached_file

from forgetmenot.errors import UserError
from forgetmenot.hub import NotThereError, answers
from forgetmenot.models.settings import ModelSettings

UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError, struct.error)
"""What reading a damaged file, or one of an architecture that Transformers does not read, may raise."""

RELAID = ("llama", "gemma2", "gemma3", "nemotron")
"""Architectures whose tensors lie in a file otherwise than in Transformers; `gguf_export` inverts that."""


def gguf_path(settings: ModelSettings) -> Path:
    """Where a model's GGUF file is; that of a hub repository is downloaded.

    Raises:
        UserError: There is no such file, or the package that reads it is not installed.
    """
    check_gguf_installed()
    if settings.on_hub:
        name, file, revision = settings.name, settings.gguf_file or "", settings.revision or "main"
        try:
            here = not answers(name, file, revision)
            return Path(cached_file(name, file, revision=revision, local_files_only=here))
        except (NotThereError, OSError) as error:
            raise UserError(
                f"The file {file!r} of the hub repository {name!r} cannot be had now ({_first_line(error)})."
            ) from error
    if settings.revision is not None:
        raise UserError(
            f"model.revision: {settings.revision!r} is for a hub id, not for a file; leave it out."
        )
    path = Path(settings.name) / settings.gguf_file if settings.gguf_file else Path(settings.name)
    if not path.is_file():
        raise UserError(f"There is no GGUF file {str(path)!r}; check name and gguf_file.")
    return path


def check_gguf_installed() -> None:
    """Check for the package that reads and writes GGUF files.

    Raises:
        UserError: It is not there.
    """
    if find_spec("gguf") is None:
        raise UserError("A GGUF file needs the package gguf: pip install 'forgetmenot[gguf]'.")


@contextmanager
def reading(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A folder that holds a GGUF file alone, and how `from_pretrained` is told of the file in it.

    Beside a `tokenizer.json`, Transformers would take that one, and not the file's own tokenizer.

    Raises:
        UserError: The file cannot be read.
    """
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):  # its bar would tear our own display
        (Path(folder) / path.name).symlink_to(path.resolve())
        try:
            yield folder, {"gguf_file": path.name}
        except UNREADABLE as error:
            raise UserError(
                f"The GGUF file {str(path)!r} could not be read: {_first_line(error)}."
            ) from error


def dequantized(path: Path, config: Any, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The plain model of a GGUF file; beside it the loading info of `from_pretrained`.

    Args:
        path: The file.
        config: What Transformers made of its metadata.
        dtype: Of the weights, which are fp32 until they are whole.

    Raises:
        UserError: The file cannot be read, or has a tensor that Transformers leaves out.
    """
    # a Transformers older than the extra asks for lacks these, and reads other models all the same
    from transformers import GgufConfig
    from transformers.integrations.gguf import read_gguf_metadata

    with reading(path) as (folder, named):
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **named,
        )
        model.tie_weights()
        metadata, names = read_gguf_metadata(str(path))
        architecture = metadata["general.architecture"]
        if read_by_name(architecture) and (unread := set(names) - tensor_names(model, architecture).keys()):
            raise ValueError(
                f"Transformers leaves out its tensor {min(unread)}, without which this is another model; "
                "take the model's safetensors"
            )
    return model, found


def architecture_of(path: Path) -> str:
    """llama.cpp's name for the architecture of a file."""
    from transformers.integrations.gguf import read_gguf_metadata

    with reading(path):
        name: str = read_gguf_metadata(str(path))[0]["general.architecture"]
    return name


def read_by_name(architecture: str) -> bool:
    """Whether Transformers takes each tensor of such a file under one name, at most in another layout."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    plain = architecture in RELAID or architecture not in TENSOR_PROCESSORS
    return plain and architecture not in GGUF_CONFIG_ARCHS


def tensor_names(model: Any, architecture: str) -> dict[str, str]:
    """The names of a file's tensors → the model's names for them."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(kind, model.config.num_hidden_layers)
    found = {names.get_name(name, try_suffixes=(".weight", ".bias")): name for name in model.state_dict()}
    return {there: here for there, here in found.items() if there is not None}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".: ")
