"""Two real models in four-bit GGUF files, trained in every way, scored, and written as GGUF again.

FMN_REAL_MODELS names the folder that holds gguf/; without them the tests are skipped.
"""

import os
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import yaml
from gguf.quants import dequantize

import forgetmenot
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.runs.export import export
from tests.gguf_files import layout_in_file, name_in_file

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("FMN_REAL_MODELS", Path.home() / ".cache" / "forgetmenot-models")) / "gguf"
FILES = {"llama": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}
ADAPTERS: dict[str, dict[str, Any]] = {
    "continue": {},
    "new": {"adapter.per_stage": "new"},
    "merge": {"adapter.per_stage": "merge"},
    "full": {"adapter.kind": "full"},
}
NEAR = {"F16": 0.05, "Q8_0": 1.0, "Q4_0": 20.0}  # nats over a whole answer, at most


def _file(architecture: str) -> Path:
    path = FOLDER / FILES[architecture]
    if not path.is_file():
        pytest.skip(f"the real model {path} is not on this machine; FMN_REAL_MODELS names its folder")
    return path


@pytest.mark.parametrize("architecture", FILES)
def test_its_weights_are_those_that_the_gguf_package_decodes(architecture: str) -> None:
    path = _file(architecture)
    loaded = load_model(ModelSettings(name=str(path)), trainable=True, device=torch.device("cpu"))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, parameter in loaded.model.named_parameters():
        tensor = tensors.pop(name_in_file(name, architecture))
        decoded = dequantize(tensor.data, tensor.tensor_type).reshape(parameter.shape)
        here = layout_in_file(name, parameter.detach().numpy(), architecture, loaded.model.config)
        assert np.allclose(here, decoded, rtol=1e-6 if "norm" in name else 0, atol=0)
    assert not tensors


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("architecture", FILES)
def test_it_is_trained_scored_and_exported(
    architecture: str, adapter: str, tiny_tasks: dict[str, Path], tmp_path: Path
) -> None:
    run = forgetmenot.run(
        {
            "model": str(_file(architecture)),
            "tasks": [str(tiny_tasks[name]) for name in ("animal", "colour")],
            "training.batch_size": 8,
            "training.limit": 16,
            "training.precision": "fp32",
            "evaluation.limit": 8,
            "evaluation.readings": [{"scoring": "generation"}],
            "output": str(tmp_path / "run"),
            **ADAPTERS[adapter],
        }
    )
    environment = yaml.safe_load((run.path / "environment.json").read_text())
    assert environment["identity"]["layout"] == environment["identity"]["training_layout"] == "trie"
    assert environment["guard"]["difference"] < 1e-3
    assert all(len(reading["matrix"]) == 3 for reading in run.results["readings"])
    kind = {"continue": "F16", "new": "Q8_0", "merge": "Q4_0", "full": "Q8_0"}[adapter]
    said = export(run.path, "2", tmp_path / "out", kind)
    print(architecture, adapter, environment["guard"]["difference"], said)
    whole, rounded = map(float, re.findall(r"at most (\S+) nats", said))
    assert whole < 1e-3
    assert rounded < NEAR[kind]
