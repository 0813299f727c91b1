"""An adapter's folder that was changed by hand is refused with the file and the key that are wrong."""

import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.models.weights import load_weights, save_weights

Change = Callable[[Path], object]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def with_key(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changed}))

    return change


def with_tensors(changed: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    return lambda folder: save_file(changed(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    first = min(tensors)
    return {("x" if name == first else name): tensor for name, tensor in tensors.items()}


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


CHANGES: Mapping[str, tuple[Change, tuple[str, ...]]] = {
    "another rank": (with_key(r=4), ("adapter does not fit", "lora_A")),
    "a rank below 0": (with_key(r=-1), (CONFIG, "r is -1")),
    "a rank that is a text": (with_key(r="8"), (CONFIG, "r is '8'")),
    "an alpha that is a text": (with_key(lora_alpha="a"), (CONFIG, "lora_alpha")),
    "an unknown kind": (with_key(peft_type="XYZ"), (CONFIG, "peft_type", "XYZ")),
    "IA3": (with_key(peft_type="IA3"), (CONFIG, "peft_type", "IA3")),
    "no kind": (with_key(peft_type=None), (CONFIG, "peft_type")),
    "DoRA": (with_key(use_dora=True), (CONFIG, "use_dora", "True")),
    "rank-stabilized": (with_key(use_rslora=True), (CONFIG, "use_rslora")),
    "whole modules": (with_key(modules_to_save=["lm_head"]), (CONFIG, "modules_to_save")),
    "biases": (with_key(bias="all"), (CONFIG, "bias")),
    "another start": (with_key(init_lora_weights="pissa"), (CONFIG, "init_lora_weights")),
    "another task": (with_key(task_type="SEQ_CLS"), (CONFIG, "task_type")),
    "targets that are not there": (with_key(target_modules=["nothing"]), ("does not fit", "nothing")),
    "targets that are a number": (with_key(target_modules=5), ("does not fit",)),
    "a list for a config": (lambda folder: (folder / CONFIG).write_text("[]"), (CONFIG, "no keys")),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{"), (CONFIG, "no JSON")),
    "a deep config": (lambda folder: (folder / CONFIG).write_text("[" * 100_000), (CONFIG, "no JSON")),
    "no config": (lambda folder: (folder / CONFIG).unlink(), (CONFIG, "cannot be read")),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), (WEIGHTS,)),
    "a pickle": (pickled, (WEIGHTS, "adapter_model.bin is a pickle")),
    "a pickle by that name": (
        lambda folder: (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1})),
        (WEIGHTS, "no safetensors"),
    ),
    "no tensors": (with_tensors(lambda _: {}), (WEIGHTS, "lacks weights", "more")),
    "a tensor missing": (
        with_tensors(lambda t: {name: t[name] for name in sorted(t)[1:]}),
        (WEIGHTS, "lacks"),
    ),
    "a tensor renamed": (with_tensors(renamed), (WEIGHTS, "lacks weights")),
    "a tensor too many": (with_tensors(lambda t: {**t, "x": torch.zeros(2)}), (WEIGHTS, "does not know (x)")),
    "other shapes": (
        with_tensors(lambda t: {k: v[:4].contiguous() for k, v in t.items()}),
        ("does not fit",),
    ),
    "whole numbers": (with_tensors(lambda t: {k: v.int() for k, v in t.items()}), (WEIGHTS, "I32")),
    "a second adapter": (lambda folder: shutil.copytree(folder, folder / "mine"), ("mine is no adapter",)),
}


def _base(folder: Path) -> Any:
    return load_model(ModelSettings(name=str(folder)), trainable=False, device=torch.device("cpu")).model


@pytest.fixture(scope="module")
def stage(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    save_weights(adapt(_base(tiny_llama), AdapterSettings(), 1, seed=1), AdapterSettings(), folder)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_hand_is_refused(name: str, stage: Path, tiny_llama: Path, tmp_path: Path) -> None:
    change, says = CHANGES[name]
    shutil.copytree(stage, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT's, which stand in the sentence
        with pytest.raises(UserError) as refused:
            load_weights(_base(tiny_llama), tmp_path, trainable=False)
    said = str(refused.value)
    assert str(tmp_path / "adapter") in said
    assert all(word in said for word in says), said


def test_a_prompt_of_another_model_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    settings = AdapterSettings(kind="prompt")
    save_weights(adapt(_base(tiny_llama), settings, 1, seed=1), settings, tmp_path)
    file = tmp_path / "prompt" / "soft_prompt.safetensors"
    for parts in ({"0": torch.zeros(3, 7)}, {"1": load_file(file)["0"]}, {}):
        save_file(parts, file)
        with pytest.raises(UserError, match=r"soft_prompt\.safetensors: part 0"):
            load_weights(_base(tiny_llama), tmp_path, trainable=False)
