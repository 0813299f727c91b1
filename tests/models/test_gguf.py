"""Models in GGUF files: the weights that the gguf package decodes, the file's own tokenizer, and refusals."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.errors import UserError
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from tests.gguf_files import Written, layout_in_file, name_in_file, write_gguf

CPU = torch.device("cpu")
TEXT = "Word: kitten 7\nKind:  cat<|end|>"


def _load(name: Path, **settings: Any) -> Any:
    return load_model(ModelSettings(name=str(name), **settings), trainable=False, device=CPU)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1"])
def test_the_weights_are_those_that_the_gguf_package_decodes(
    tiny_gguf: Written, kind: str, architecture: str
) -> None:
    path = tiny_gguf(kind, architecture)
    model = _load(path).model
    decoded = {t.name: dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    names = dict(model.named_parameters())
    assert {name_in_file(name, architecture) for name in names} == decoded.keys()
    for name, parameter in names.items():
        here = layout_in_file(name, parameter.detach().numpy(), architecture, model.config)
        assert np.array_equal(here, decoded[name_in_file(name, architecture)]) or (
            "norm" in name and np.allclose(here, decoded[name_in_file(name, architecture)], atol=1e-7)
        )
    assert model.dtype == torch.float32


def test_full_precision_gives_the_original(tiny_gguf: Written, tiny_llama: Path) -> None:
    own, read = AutoModelForCausalLM.from_pretrained(tiny_llama), _load(tiny_gguf("F32")).model
    ids = torch.arange(40)[None]
    torch.testing.assert_close(read(ids).logits, own(ids).logits)


def test_the_tokenizer_and_the_chat_template_come_from_the_file(
    tiny_gguf: Written, tiny_tokenizer: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "both")
    shutil.copy(tiny_gguf(), tmp_path / "both" / "x.gguf")
    (tmp_path / "both" / "chat_template.jinja").write_text("another")
    for loaded in (_load(tiny_gguf()), _load(tmp_path / "both", gguf_file="x.gguf")):
        assert loaded.tokenizer(TEXT)["input_ids"] == tiny_tokenizer(TEXT)["input_ids"]
        assert loaded.tokenizer.chat_template == tiny_tokenizer.chat_template
        assert loaded.tokenizer.eos_token_id == tiny_tokenizer.eos_token_id


def test_what_is_read_is_an_ordinary_model(tiny_gguf: Written, tmp_path: Path) -> None:
    loaded = _load(tiny_gguf("Q4_0"))
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[n], p) for n, p in loaded.model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"] == loaded.tokenizer(TEXT)["input_ids"]


def test_tied_weights_stay_one(tiny_gguf: Written) -> None:
    model = _load(tiny_gguf("Q8_0", "gemma3")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_file_is_known_by_its_content(tiny_gguf: Written, tmp_path: Path) -> None:
    shutil.copy(tiny_gguf(), tmp_path / tiny_gguf().name)
    assert _load(tiny_gguf()).revision == _load(tmp_path, gguf_file=tiny_gguf().name).revision
    assert _load(tiny_gguf("Q4_0")).revision != _load(tiny_gguf()).revision


def test_a_repository_of_the_hub_may_hold_the_file(
    tiny_gguf: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--owner--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(tiny_gguf(), folder / "snapshots" / commit / "x.gguf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert _load(Path("owner/tiny"), gguf_file="x.gguf").revision == commit
    with pytest.raises(UserError, match=r"'y\.gguf' of the hub repository 'owner/tiny' cannot be had"):
        _load(Path("owner/tiny"), gguf_file="y.gguf")


def test_a_hub_that_does_not_answer_is_asked_once_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_network(url: str, **_: object) -> None:
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    with pytest.raises(UserError, match=r"'x\.gguf' of .* cannot be had now \(.* no route to host\)"):
        _load(Path("owner/tiny"), gguf_file="x.gguf")
    assert len(asked) == 1


def test_without_the_package_the_extra_is_named(tiny_gguf: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_gguf()
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "forgetmenot.models.gguf.find_spec", lambda name: None if name == "gguf" else there(name)
    )
    with pytest.raises(UserError, match=r"pip install 'forgetmenot\[gguf\]'"):
        _load(path)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _no_file_of_the_kind(path: Path) -> None:
    path.write_bytes(b"no GGUF file at all, of any length that could be read")


@pytest.mark.parametrize("harm", [_truncated, _no_file_of_the_kind])
def test_a_damaged_file_is_said_to_be(
    tiny_gguf: Written, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = Path(shutil.copy(tiny_gguf(), tmp_path / "x.gguf"))
    harm(path)
    with pytest.raises(UserError, match=r"The GGUF file '.*x\.gguf' could not be read: "):
        _load(path)


def test_a_tensor_that_transformers_leaves_out_is_no_small_thing(
    tiny_llama: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.lm_head.extra = torch.nn.Parameter(torch.ones(4))  # in the file under a name of its own, below
    with pytest.MonkeyPatch.context() as patch:
        own = name_in_file
        patch.setattr(
            "tests.gguf_files.name_in_file",
            lambda name, kind: "rope_freqs.weight" if name == "lm_head.extra" else own(name, kind),
        )
        path = write_gguf(tmp_path / "x.gguf", model, tiny_tokenizer, "F16")
    with pytest.raises(UserError, match=r"leaves out its tensor rope_freqs\.weight, .*take the model's safe"):
        _load(path)


def test_what_names_no_file_is_said(tiny_gguf: Written, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no GGUF file '.*none\.gguf'"):
        _load(tmp_path / "none.gguf")
    with pytest.raises(UserError, match=r"There is no GGUF file '.*none\.gguf'"):
        _load(tmp_path, gguf_file="none.gguf")
    with pytest.raises(UserError, match=r"model\.revision: 'v1' is for a hub id"):
        _load(tiny_gguf(), revision="v1")
    with pytest.raises(ValidationError, match="quantization has no effect with a GGUF file"):
        ModelSettings(name="x.gguf", quantization="nf4")
    with pytest.raises(ValidationError, match="name is a GGUF file already"):
        ModelSettings(name="x.gguf", gguf_file="y.gguf")
