"""The export of a model as one GGUF file, its weights rounded by the gguf package itself.

Metadata and tokenizer are those of a template: the base's own GGUF file or, where the base is none, what
llama.cpp's converter makes of the model.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from forgetmenot.errors import UserError
from forgetmenot.models.gguf import (
    architecture_of,
    check_gguf_installed,
    gguf_path,
    read_by_name,
    tensor_names,
)
from forgetmenot.models.settings import ModelSettings

CONVERTER = "convert_hf_to_gguf.py"
BESIDE = ("llama-cli", "llama-quantize", "llama-server")
"""Programs of llama.cpp: its converter lies in their folder, or two above, where its source is."""

NOT_COPIED = (
    "GGUF.",
    "general.architecture",
    "general.file_type",
    "general.quantization_version",
    "quantize.imatrix.",
    "split.",
)
"""The beginnings of what a template says of its own tensors, or the writer says itself."""

EXPLAINED = {"F16": 0.005, "Q8_0": 0.05, "Q4_0": 0.5}
"""The share of a tensor's norm that rounding may change; seen: up to 0.0003, 0.007 and 0.16, and with rows in
another order more than 1. Ours."""

Array = NDArray[np.float32]


def find_template(base: ModelSettings) -> Path:
    """The base's GGUF file, where an exported tensor's place in it is known, else llama.cpp's converter.

    Raises:
        UserError: There is neither.
    """
    check_gguf_installed()
    if base.in_gguf and read_by_name(architecture_of(path := gguf_path(base))):
        return path
    places = [Path(found).resolve().parent for name in BESIDE if (found := shutil.which(name))]
    there = [place / CONVERTER for near in places for place in (near, near.parent.parent)]
    on_path = shutil.which(CONVERTER)
    converter = Path(on_path) if on_path else next((path for path in there if path.is_file()), None)
    if converter is None:
        raise UserError(
            f"--gguf: a GGUF file is written after the base's own, and {base.name!r} is no GGUF file whose "
            f"layout is known here, or else by llama.cpp's {CONVERTER}, which is neither on PATH nor beside "
            "llama-cli. Put it there, or export without --gguf and convert what is written."
        )
    return converter


def write_gguf(folder: Path, template: Path, kind: str, out: Path) -> None:
    """Write a model as a GGUF file.

    Vectors and norms stay F32, as llama.cpp's converter has it; a matrix whose rows are no whole number of
    the type's blocks becomes F16.

    Args:
        folder: Where Transformers saved the model, as safetensors.
        template: What `find_template` gave.
        kind: One of GGUF_TYPES.
        out: The file.

    Raises:
        UserError: llama.cpp's converter does not take the model.
    """
    partial = out.with_suffix(".part")
    if template.name == CONVERTER:
        with TemporaryDirectory(dir=out.parent) as scratch:
            reader = _reader(_converted(folder, template, Path(scratch) / "whole.gguf"))
            _write(reader, lambda tensor: tensor.data, kind, partial)
    else:
        reader = _reader(template)
        architecture = reader.fields["general.architecture"].contents()
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            names = tensor_names(AutoModelForCausalLM.from_config(config), architecture)
        weights = Weights(folder)
        _write(
            reader,
            lambda tensor: _laid_out(architecture, tensor.name, weights[names[tensor.name]], config),
            kind,
            partial,
        )
    partial.rename(out)


def check_written(model: Any, folder: Path, kind: str) -> None:
    """Hold a model that was read from a GGUF file against the one that the file was written from.

    Args:
        model: The model read.
        folder: Where Transformers saved the other, as safetensors.
        kind: One of GGUF_TYPES.

    Raises:
        UserError: A weight differs by more than rounding explains.
    """
    weights = Weights(folder)
    read = dict(model.state_dict())
    for name in weights.files:
        weight = torch.from_numpy(weights[name])
        other = read.get(name, torch.full_like(weight, torch.nan)).float().cpu()
        difference = float((other - weight).norm() / weight.norm().clamp_min(1e-12))
        if not difference <= EXPLAINED[kind]:  # nor where it is no number
            raise UserError(
                f"--gguf: read again, the file holds another model: {name} differs by {difference:.2g} of "
                f"its norm, and {kind} explains {EXPLAINED[kind]:g}. Use the safetensors beside it, and "
                "report this."
            )


class Weights:
    """The weights in a folder's safetensors, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self.files |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> Array:
        with safe_open(self.files[name], framework="pt") as file:
            whole: Array = file.get_tensor(name).float().numpy()
        return whole


def _reader(path: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(path)


def _converted(folder: Path, converter: Path, out: Path) -> Path:
    """What llama.cpp's converter makes of a folder, in fp32."""
    command = [sys.executable, str(converter), str(folder), "--outfile", str(out), "--outtype", "f32"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or not out.is_file():
        last = (ended.stderr.strip() or ended.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UserError(
            f"--gguf: {converter} does not take this model ({last}). The safetensors in {folder} are whole."
        )
    return out


def _write(reader: Any, weight: Callable[[Any], Array], kind: str, out: Path) -> None:
    """Write a file like the one read, with these weights, one after another."""
    from gguf import GGUFWriter, quant_shape_to_byte_shape
    from gguf.quants import quantize

    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    _copy_fields(reader, writer, kind)
    kinds = [_type_of(tensor.name, _shape(tensor), kind) for tensor in reader.tensors]
    for tensor, own in zip(reader.tensors, kinds, strict=True):
        in_bytes = quant_shape_to_byte_shape(_shape(tensor), own)
        size = int(np.prod(in_bytes))
        writer.add_tensor_info(tensor.name, in_bytes, np.dtype(np.uint8), size, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, own in zip(reader.tensors, kinds, strict=True):
        writer.write_tensor_data(quantize(np.ascontiguousarray(weight(tensor), dtype=np.float32), own))
    writer.close()


def _copy_fields(reader: Any, writer: Any, kind: str) -> None:
    from gguf import GGML_QUANT_VERSION, GGUFValueType, LlamaFileType

    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for name, field in reader.fields.items():
        if not name.startswith(NOT_COPIED):
            of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=of_array)


def _shape(tensor: Any) -> tuple[int, ...]:
    """As Transformers writes it: the longest stride first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _type_of(name: str, shape: tuple[int, ...], kind: str) -> Any:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2 or name.endswith("_norm.weight"):
        return GGMLQuantizationType.F32
    wanted = GGMLQuantizationType[kind]
    block, _ = GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if shape[-1] % block else wanted


def _laid_out(architecture: str, name: str, weight: Array, config: Any) -> Array:
    """A weight as such a file has it: what Transformers undoes when it reads it."""
    if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        # rotary pairs: those half a head apart lie side by side
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape)
    if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
        return weight + 1
    return weight
