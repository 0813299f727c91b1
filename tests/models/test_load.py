"""Loading a model: from a directory, from the hub's cache, and nothing that was not allowed."""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma3Config, GPT2Config
from transformers.utils import logging

from forgetmenot.errors import UserError
from forgetmenot.models.load import _disable_dropout, load_model
from forgetmenot.models.revision import weights_fingerprint
from forgetmenot.models.settings import ModelSettings

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copied(tiny_llama: Path, tmp_path: Path) -> Path:
    """The tiny model, to be broken."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    return folder


@pytest.fixture
def hub(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's client leaves it, with one repository: owner/tiny."""
    cache = tmp_path / "hub"
    folder = cache / "models--owner--tiny"
    for name, ref in (("main", COMMIT), ("old", COMMIT[::-1])):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / name).write_text(ref)
        (folder / "snapshots" / ref).mkdir(parents=True)
        (folder / "blobs").mkdir(exist_ok=True)
        for file in tiny_llama.iterdir():
            blob = folder / "blobs" / f"{name}-{file.name}"
            shutil.copy(file, blob)
            (folder / "snapshots" / ref / file.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(cache), raising=False)
    return folder


def _load(name: str | Path, *, trainable: bool = False, **settings: Any) -> Any:
    return load_model(ModelSettings(name=str(name), **settings), trainable=trainable, device=CPU)


def test_a_directory_gives_its_weights_and_tokenizer(tiny_llama: Path, tiny_tokenizer: Any) -> None:
    loaded = _load(tiny_llama)
    stored = load_file(tiny_llama / "model.safetensors")
    held = loaded.model.state_dict()
    assert stored.keys() <= held.keys()
    assert all(torch.equal(held[name], value) for name, value in stored.items())
    assert not loaded.model.training
    assert loaded.dropout == {}
    text = "Word: kitten 7"
    assert loaded.tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]


def test_a_directory_is_known_by_its_weights(tiny_llama: Path, copied: Path) -> None:
    revision = _load(tiny_llama).revision
    assert len(revision) == 16
    assert _load(copied).revision == revision
    other = AutoModelForCausalLM.from_pretrained(copied)
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-3
    other.save_pretrained(copied)
    assert _load(copied).revision != revision


def test_another_tokenizer_makes_another_revision(tiny_llama: Path, copied: Path) -> None:
    file = copied / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    assert _load(copied).revision != _load(tiny_llama).revision


def test_a_hub_id_is_read_from_the_cache_and_its_commit_recorded(hub: Path) -> None:
    assert _load("owner/tiny").revision == COMMIT
    assert _load("owner/tiny", revision="old").revision == COMMIT[::-1]
    assert _load("owner/tiny", revision=COMMIT).revision == COMMIT


@pytest.mark.parametrize(("name", "revision"), [("owner/tinny", None), ("owner/tiny", "v9")])
def test_what_the_hub_does_not_have_is_named(hub: Path, name: str, revision: str | None) -> None:
    with pytest.raises(UserError, match=rf"'{name}' could not be loaded: .*nor a hub id that can be reached"):
        _load(name, revision=revision)


def test_a_gated_model_says_how_to_get_it(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        answer: Any = SimpleNamespace(
            headers={}, request=None
        )  # of whichever HTTP library the hub's client has
        raise GatedRepoError("Access is restricted.", response=answer)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"'meta/llama' is gated: accept its licence .*meta/llama and log in"):
        _load("meta/llama")


def test_full_fine_tuning_learns_in_fp32(copied: Path) -> None:
    AutoModelForCausalLM.from_pretrained(copied).bfloat16().save_pretrained(copied)
    assert _load(copied).model.dtype == torch.float32  # auto, on a CPU
    assert _load(copied, dtype="bf16").model.dtype == torch.bfloat16
    assert _load(copied, dtype="fp32").model.dtype == torch.float32
    learning = _load(copied, dtype="bf16", trainable=True).model
    assert {parameter.dtype for parameter in learning.parameters()} == {torch.float32}


def test_the_models_own_dropout_is_set_to_0_and_recorded(tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=1, n_head=2, resid_pdrop=0.3, attn_pdrop=0.0
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = _load(tmp_path)
    assert loaded.dropout["resid_pdrop"] == 0.3
    assert loaded.dropout["embd_pdrop"] == 0.1
    assert "attn_pdrop" not in loaded.dropout
    modules = [m.p for m in loaded.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert modules
    assert set(modules) == {0.0}


def test_dropout_of_a_text_model_within_a_larger_one_is_found() -> None:
    config = Gemma3Config(text_config={"attention_dropout": 0.2, "num_hidden_layers": 1})
    assert _disable_dropout(config) == {"attention_dropout": 0.2}
    assert config.get_text_config().attention_dropout == 0.0


def _as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights_need_a_permission(copied: Path, tiny_llama: Path) -> None:
    _as_bin(copied)
    with pytest.raises(UserError, match=r"no safetensors weights; set model\.allow_bin: true"):
        _load(copied)
    held = _load(copied, allow_bin=True).model.state_dict()
    stored = load_file(tiny_llama / "model.safetensors")
    assert all(torch.equal(held[name], value) for name, value in stored.items())


class _Payload:
    """What runs as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing_even_with_the_permission(copied: Path, tmp_path: Path) -> None:
    (copied / "model.safetensors").unlink()
    torch.save({"model.norm.weight": _Payload(tmp_path / "ran")}, copied / "pytorch_model.bin")
    try:
        _load(copied, allow_bin=True)
    except Exception as error:  # noqa: BLE001 (whoever refuses it, however)
        refused = str(error)
    assert refused
    assert not (tmp_path / "ran").exists()


def test_safetensors_come_first_whatever_is_allowed(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert _load(copied, allow_bin=True).model.dtype == torch.float32


def test_damaged_weights_are_said_to_be(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"The weights of model .*model' are damaged"):
        _load(copied)


def test_weights_that_do_not_fill_the_model_are_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks weights .*model\.layers\.2\..* and 8 more"):
        _load(copied)


def test_a_directory_without_a_config_is_no_model(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(UserError, match=r"model' has no config\.json"):
        _load(copied)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_missing_directory_is_no_hub_id(name: str) -> None:
    with pytest.raises(UserError, match=f"There is no model directory '{name}'"):
        _load(name)


def test_a_models_own_code_needs_a_permission(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(UserError, match=r"code of its own; set model\.trust_remote_code: true"):
        _load(copied)
    assert not (tmp_path / "ran").exists()


def test_loading_leaves_transformers_bars_and_verbosity_as_they_were(tiny_llama: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    _load(tiny_llama)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_token_without_a_row_is_said_with_both_numbers(copied: Path, tiny_tokenizer: Any) -> None:
    grown = copy.deepcopy(tiny_tokenizer)
    grown.add_tokens(["plumwort"])
    grown.save_pretrained(copied)
    with pytest.raises(UserError, match=r"up to 300, such as that of 'plumwort'.* 300 rows"):
        _load(copied)


def test_a_special_token_without_a_row_passes_where_nothing_writes_it(
    copied: Path, tiny_tokenizer: Any
) -> None:
    grown = copy.deepcopy(tiny_tokenizer)
    grown.add_tokens(["<|image|>"], special_tokens=True)
    grown.save_pretrained(copied)
    assert len(_load(copied).tokenizer) == 301
    grown.chat_template = "<|image|>" + grown.chat_template
    grown.save_pretrained(copied)
    with pytest.raises(UserError, match=r"'<\|image\|>'"):
        _load(copied)


def test_a_named_token_without_a_row_is_said(copied: Path, tiny_tokenizer: Any) -> None:
    grown = copy.deepcopy(tiny_tokenizer)
    grown.add_special_tokens({"eos_token": "<|finis|>"})
    grown.save_pretrained(copied)
    with pytest.raises(UserError, match=r"names the eos_token_id 300, .* 300 rows"):
        _load(copied)


def test_a_pad_token_without_a_row_is_said(copied: Path) -> None:
    path = copied / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 300}))
    with pytest.raises(UserError, match="pad_token_id"):
        _load(copied)


def test_weights_that_were_changed_in_the_hub_s_cache_are_refused(hub: Path) -> None:
    link = hub / "snapshots" / COMMIT / "model.safetensors"
    content = link.resolve().read_bytes()
    blob = hub / "blobs" / hashlib.sha256(content).hexdigest()
    link.resolve().rename(blob)
    link.unlink()
    link.symlink_to(blob)
    assert _load("owner/tiny").revision == COMMIT
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(
        UserError, match=rf"owner/tiny.* is not what the hub gave .* Delete {re.escape(str(blob))}"
    ):
        _load("owner/tiny")


@pytest.mark.parametrize("name", ["code.py", "parts/code.py", "additional_chat_templates/tool.jinja"])
def test_code_and_templates_belong_to_a_directory_s_revision(copied: Path, name: str) -> None:
    before = weights_fingerprint(copied)
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("1")
    one = weights_fingerprint(copied)
    (copied / name).write_text("2")
    assert len({before, one, weights_fingerprint(copied)}) == 3
