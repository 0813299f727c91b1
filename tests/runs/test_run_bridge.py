"""Runs whose one learning part is a bridge to a second model: what is kept, loaded, counted and refused."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import forgetmenot
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.composition import added_parameters
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.models.weights import load_weights, save_weights
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore

Config = Mapping[str, Any]
Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SHORT = {"evaluation.limit": 8, "training.limit": 16}


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """The directory of a random Llama of width 16 with 3 layers, and the tokenizer of the tiny one."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "small-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def bridge(small_llama: Path) -> dict[str, Any]:
    """The settings of a bridge to it."""
    return {
        "adapter": {"kind": "bridge", "augmenting": str(small_llama), "connections": 2, "heads": 4},
        **SHORT,
    }


@pytest.fixture
def two(tiny: Config, bridge: dict[str, Any]) -> dict[str, Any]:
    """Of two tasks."""
    return {**bridge, "tasks": tiny["tasks"][:2], "training.learning_rate": 0.01}


def test_only_the_bridge_learns_and_is_kept(go: Go, two: dict[str, Any]) -> None:
    run = go("run", two)
    stages = [run.path / "stages" / stage["name"] / "bridge" for stage in run.results["stages"][1:]]
    for folder in stages:
        assert {path.name for path in folder.iterdir()} == {"bridge.safetensors", "bridge_config.json"}
    first, second = (load_file(folder / "bridge.safetensors") for folder in stages)
    assert sum(value.numel() for value in first.values()) == added_parameters(16, 32, 2)
    assert all(value.dtype == torch.float32 for value in first.values())
    assert all(not torch.equal(first[name], second[name]) for name in first if "key.bias" not in name)
    answers = [run.predictions(k)["log_likelihoods"].tolist() for k in range(3)]
    assert all(any((a != b).any() for a, b in zip(answers[k], answers[k + 1], strict=True)) for k in (0, 1))


def test_saved_stages_answer_as_they_did(go: Go, two: dict[str, Any]) -> None:
    """Models and bridges are loaded anew, and matrix and log-likelihoods are the same to the last bit."""
    run = go("run", two)
    _, found = rescore(run.path)
    own = run.results["readings"][0]
    assert {key: {**found}[key] for key in own} == own


def test_a_saved_bridge_gives_the_same_logits(
    tiny_llama: Path, bridge: dict[str, Any], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    def anchor() -> Any:
        return load_model(
            ModelSettings(name=str(tiny_llama)), trainable=False, device=torch.device("cpu")
        ).model

    settings = AdapterSettings(**bridge["adapter"])
    model = adapt(anchor(), settings, 1, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in Learner(model, None, budget=64).trainable().values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    save_weights(model, settings, tmp_path)
    loaded = load_weights(anchor(), tmp_path, trainable=True)
    texts = ["Word: tabby 3\nKind: cat", "Word: tabby 12\nKind: dog", "sky"]
    sequences = [TokenSequence(tuple(tiny_tokenizer(text)["input_ids"]), 1) for text in texts]
    before, after, alone = (
        Learner(one, tiny_tokenizer, budget=64).log_probs(sequences) for one in (model, loaded, anchor())
    )
    assert torch.equal(before, after)
    assert not torch.allclose(before, alone, atol=0.01)
    assert adapt(loaded, settings, 2, seed=9) is loaded  # the same bridge goes on
    learning = Learner(loaded, None, budget=64).trainable()
    assert len(learning) == 2 * 10
    assert all(".connections." in name for name in learning)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about, weights: about.pop("heads"), "bridge_config.json is no config of a bridge"),
        (lambda about, weights: about.update(connections=1), "1.key.bias is missing, not known"),
        (lambda about, weights: weights.pop("0.output.weight"), "0.output.weight is missing"),
        (lambda about, weights: about.update(augmenting_revision="0"), "trained with another model than"),
    ],
)
def test_a_bridge_that_does_not_fit_is_refused(
    tiny_llama: Path, bridge: dict[str, Any], tmp_path: Path, change: Callable[..., object], says: str
) -> None:
    settings = AdapterSettings(**bridge["adapter"])
    load = ModelSettings(name=str(tiny_llama))
    model = load_model(load, trainable=False, device=torch.device("cpu")).model
    save_weights(adapt(model, settings, 1, seed=3), settings, tmp_path)
    folder = tmp_path / "bridge"
    about = json.loads((folder / "bridge_config.json").read_text())
    weights = load_file(folder / "bridge.safetensors")
    change(about, weights)
    (folder / "bridge_config.json").write_text(json.dumps(about))
    save_file(weights, folder / "bridge.safetensors")
    model = load_model(load, trainable=False, device=torch.device("cpu")).model
    with pytest.raises(UserError, match=says):
        load_weights(model, tmp_path, trainable=False)


def test_the_preview_counts_the_papers_parameters(tiny: Config, tmp_path: Path, two: dict[str, Any]) -> None:
    config = {**tiny, **two, "output": str(tmp_path / "run")}
    before = forgetmenot.preview(config)
    assert before.parameters["trainable"] == added_parameters(16, 32, 2)
    run = forgetmenot.run(config)
    positions = run.results["cost"]["positions"]
    for stage in before.stages:
        assert stage.computed == positions[stage.name]["training"]["computed"]


def test_layers_that_compute_their_activations_again_learn_the_same(go: Go, two: dict[str, Any]) -> None:
    one = go("one", two)
    other = go("other", {**two, "training.activation_checkpointing": True})
    for stage in one.results["stages"][1:]:
        mine, theirs = (
            load_file(run.path / "stages" / stage["name"] / "bridge/bridge.safetensors")
            for run in (one, other)
        )
        assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in mine)


def test_a_run_whose_tokenizers_differ(tiny: Config, two: dict[str, Any], tmp_path: Path) -> None:
    two["adapter"] = {**two["adapter"], "augmenting": "quickstart-small"}
    shown = Console(file=io.StringIO(), width=500)
    run = forgetmenot.run({**tiny, **two, "output": str(tmp_path / "run")}, console=shown)
    identity = json.loads((run.path / "environment.json").read_text())["identity"]
    assert identity["augmenting_tokens"] == "its own, aligned by text"
    assert identity["layout"] == "trie"
    assert isinstance(shown.file, io.StringIO)
    assert "augmenting tokens its own, aligned by text" in shown.file.getvalue()


def test_a_bridge_is_not_exported(go: Go, two: dict[str, Any], tmp_path: Path) -> None:
    run = go("run", two)
    with pytest.raises(UserError, match="Two models with a bridge between them"):
        export(run.path, "last", tmp_path / "out")


def test_another_augmenting_model_is_refused(
    go: Go, two: dict[str, Any], small_llama: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(small_llama, tmp_path / "augmenting")
    two["adapter"] = {**two["adapter"], "augmenting": str(own)}
    run = go("run", {**two, "tasks": two["tasks"][:1]})
    weights = load_file(own / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, own / "model.safetensors")
    with pytest.raises(UserError, match=r"was created with augmenting_revision .* mix two runs"):
        go("run", two)
    with pytest.raises(UserError, match="augmenting"):
        rescore(run.path, prompt="terse")


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        ({"kind": "lora", "augmenting": "quickstart"}, "augmenting has no effect with kind: lora"),
        (
            {"connections": 3},
            r"adapter.connections: 3 layers .* the augmenting model has 3, the run's model 2",
        ),
        (
            {"augmenting": {"name": "quickstart-small", "quantization": "nf4"}},
            "quantization is for the run's own model",
        ),
        ({"heads": 3}, "adapter.heads: the width of the run's model, 32, is no multiple of 3"),
        ({"augmenting": "/nowhere"}, "adapter.augmenting: .* '/nowhere'"),
    ],
)
def test_what_does_not_fit_is_said(go: Go, two: dict[str, Any], adapter: dict[str, Any], says: str) -> None:
    whole = adapter if "kind" in adapter else {**two["adapter"], **adapter}
    with pytest.raises(UserError, match=says):
        go("run", {**two, "adapter": whole})
