"""Runs on a model in a GGUF file, and stages exported as one."""

import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import yaml
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from forgetmenot.config import load_config, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore
from tests.gguf_files import Written, layout_in_file, name_in_file, write_gguf

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 8, "training.limit": 16}
NEAR = {"F16": 0.01, "Q8_0": 0.1, "Q4_0": 2.0}  # nats that a tiny model's answers move by, at most


def _nats(said: str) -> tuple[float, float]:
    """How far the safetensors and the GGUF file lie from the run."""
    first, second = re.findall(r"at most (\S+) nats", said)
    return float(first), float(second)


@pytest.mark.parametrize("adapter", ["continue", "new", "merge", "full"])
def test_a_run_on_a_gguf_file_is_a_run(
    go: Go, tiny_gguf: Written, tmp_path: Path, adapter: str, answers_alone: Callable[[Path, Run, int], None]
) -> None:
    settings = {"adapter.kind": "full"} if adapter == "full" else {"adapter.per_stage": adapter}
    run = go("one", {**SMALL, **settings, "model": str(tiny_gguf("Q4_0"))})
    assert rescore(run.path)[1]["matrix"] == run.results["matrix"]
    export(run.path, "2", tmp_path / "out")
    answers_alone(tmp_path / "out", run, 2)
    left = [path.read_text() for path in run.path.rglob("*.json")]
    assert not any("quantization_config" in text for text in left)


def test_a_gemma_with_sliding_windows_goes_through_the_trie(go: Go, tiny_gguf: Written) -> None:
    run = go("one", {**SMALL, "model": str(tiny_gguf("Q8_0", "gemma3"))})
    environment = yaml.safe_load((run.path / "environment.json").read_text())
    assert environment["identity"]["layout"] == environment["identity"]["training_layout"] == "trie"
    assert environment["guard"]["difference"] < 1e-4


def test_a_saved_stage_stands_on_its_own_file(go: Go, tiny_gguf: Written, tmp_path: Path) -> None:
    own = tmp_path / "base.gguf"
    own.write_bytes(tiny_gguf("Q8_0").read_bytes())
    run = go("one", {**SMALL, "model": str(own)})
    own.write_bytes(tiny_gguf("Q4_0").read_bytes())
    with pytest.raises(UserError, match="another than the run began with"):
        export(run.path, "1", tmp_path / "out")


def test_a_file_beside_the_config_is_relative_to_it(tiny_gguf: Written, tmp_path: Path) -> None:
    own = tmp_path / "base.gguf"
    own.write_bytes(tiny_gguf("Q8_0").read_bytes())
    (tmp_path / "one.yaml").write_text("model: base.gguf\n")
    (tmp_path / "other.yaml").write_text("model: {name: ., gguf_file: base.gguf}\n")
    assert load_config(tmp_path / "one.yaml").model.name == str(own)
    other = load_config(tmp_path / "other.yaml").model
    assert (other.name, other.gguf_file) == (str(tmp_path), "base.gguf")
    assert other.title == str(own)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_stage_is_written_after_the_file_of_its_base(
    go: Go, tiny_gguf: Written, tmp_path: Path, architecture: str, kind: str
) -> None:
    base = tiny_gguf("Q8_0", architecture)
    run = go("one", {**SMALL, "model": str(base), "adapter.kind": "full", "training.learning_rate": 3e-3})
    out = tmp_path / "out"
    whole, rounded = _nats(export(run.path, "3", out, kind))
    assert whole < 1e-4
    assert rounded < NEAR[kind]
    config = AutoModelForCausalLM.from_pretrained(out).config
    template, written = gguf.GGUFReader(base), gguf.GGUFReader(out / f"model-{kind}.gguf")
    tensors = {tensor.name: tensor for tensor in written.tensors}
    for name, weight in load_file(out / "model.safetensors").items():
        tensor = tensors.pop(name_in_file(name, architecture))
        own = gguf.GGMLQuantizationType[kind if weight.dim() > 1 else "F32"]
        expected = np.ascontiguousarray(layout_in_file(name, weight.numpy(), architecture, config))
        assert tensor.tensor_type == own
        assert np.array_equal(
            dequantize(tensor.data, own).reshape(weight.shape), dequantize(quantize(expected, own), own)
        )
    assert not tensors
    same = [key for key in template.fields if not key.startswith("GGUF.")]
    assert all(written.fields[key].contents() == template.fields[key].contents() for key in same)
    assert written.fields["general.file_type"].contents() == gguf.LlamaFileType[f"MOSTLY_{kind}"]


def test_rows_that_are_no_whole_number_of_blocks_become_f16(
    go: Go, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    base = write_gguf(tmp_path / "base.gguf", LlamaForCausalLM(config), tiny_tokenizer, "F32")
    run = go("one", {**SMALL, "model": str(base)})
    export(run.path, "1", tmp_path / "out", "Q8_0")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out/model-Q8_0.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"


def test_an_exported_file_is_a_base_in_its_turn(go: Go, tiny_gguf: Written, tmp_path: Path) -> None:
    run = go("one", {**SMALL, "model": str(tiny_gguf("Q8_0"))})
    export(run.path, "3", tmp_path / "out", "F16")
    onward = go("onward", {**SMALL, "model": str(tmp_path / "out" / "model-F16.gguf")})
    assert onward.results["matrix"][0] == run.results["matrix"][3]


def test_a_file_in_another_layout_is_not_left(
    go: Go, tiny_gguf: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go("one", {**SMALL, "model": str(tiny_gguf("Q8_0"))})
    monkeypatch.setattr("forgetmenot.models.gguf_export._laid_out", lambda kind, name, weight, config: weight)
    with pytest.raises(
        UserError, match=r"holds another model: .*_proj\.weight differs by 1\.\d* of its norm"
    ):
        export(run.path, "1", tmp_path / "out", "Q4_0")
    assert not list((tmp_path / "out").glob("*.gguf"))


CONVERTER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from transformers import AutoModelForCausalLM, AutoTokenizer
from tests.gguf_files import write_gguf
folder, _, out, _, kind = sys.argv[1:]
assert kind == "f32", kind
model = AutoModelForCausalLM.from_pretrained(folder)
write_gguf(Path(out), model, AutoTokenizer.from_pretrained(folder), "F32")
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for llama.cpp's converter, in the source tree whose build/bin is on PATH."""
    path = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    program = path.parent / "build" / "bin" / "llama-cli"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path.write_text(CONVERTER.format(root=str(Path(__file__).parents[2])))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{Path(sys.executable).parent}")
    return path


def test_without_a_file_of_its_base_llama_cpps_converter_lays_it_out(
    go: Go, converter: Path, tmp_path: Path
) -> None:
    run = go("one", SMALL)
    assert converter.is_file()
    whole, rounded = _nats(export(run.path, "3", tmp_path / "out", "Q8_0"))
    assert whole < rounded < NEAR["Q8_0"]
    assert {path.name for path in (tmp_path / "out").glob("*gguf*")} == {"model-Q8_0.gguf"}


def test_what_the_converter_refuses_is_said(go: Go, converter: Path, tmp_path: Path) -> None:
    run = go("one", SMALL)
    converter.write_text("import sys; sys.exit('ERROR: Model FooForCausalLM is not supported')")
    with pytest.raises(UserError, match=r"does not take this model \(ERROR: Model FooForCausalLM"):
        export(run.path, "3", tmp_path / "out", "Q8_0")
    assert not (tmp_path / "out").exists()


def test_without_a_template_and_a_converter_it_is_said_what_to_do(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go("one", SMALL)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py, which is neither on PATH nor beside"):
        export(run.path, "3", tmp_path / "out", "Q8_0")
    assert not (tmp_path / "out").exists()


def test_a_run_without_likelihoods_still_gets_its_file(
    go: Go, tiny: Mapping[str, Any], tiny_gguf: Written, tmp_path: Path
) -> None:
    run = go("one", {**SMALL, "model": str(tiny_gguf()), "evaluation.scoring": "generation"})
    said = export(run.path, "1", tmp_path / "out", "Q4_0")
    assert "holds the same model; it was not held against the run's log-likelihoods" in said
    assert read_resolved(run.path / "config.yaml").model.in_gguf
