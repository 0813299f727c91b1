"""What `freeze` leaves to learn, in each layer and stage."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, FalconConfig, GPT2Config, GPTNeoXConfig, OPTConfig

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.models.adapt import adapt
from forgetmenot.models.layers import decoder_layers
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import choose_prompt
from forgetmenot.prompting.wording import Wording
from forgetmenot.tasks import load_tasks

Adapted = Callable[..., Learner]
SECOND = Stage(2, ("colour",))


def _layers(learner: Learner) -> set[str]:
    """Where something learns: layer numbers, or the name of what lies outside."""
    found = (re.search(r"layers\.(\d+)|embed_tokens|lm_head|norm", name) for name in learner.trainable())
    return {one.group(1) or one.group(0) for one in found if one}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_lower_half_is_frozen_after_the_first_stage(adapted: Adapted, kind: str) -> None:
    learner = adapted(kind=kind)
    before = set(learner.trainable())
    method = make_method("freeze", {}, 0)
    method.adapt(learner, Stage(1, ("animal",)))
    assert set(learner.trainable()) == before
    method.adapt(learner, SECOND)
    assert _layers(learner) == ({"1"} if kind == "lora" else {"1", "norm", "lm_head"})


def test_no_warm_up_freezes_from_the_start(adapted: Adapted) -> None:
    learner = adapted()
    make_method("freeze", {"warm_up": 0}, 0).adapt(learner, Stage(1, ("animal",)))
    assert _layers(learner) == {"1"}


def test_a_later_adapter_is_frozen_as_well(adapted: Adapted) -> None:
    learner = adapted(per_stage="new")
    learner.model = adapt(learner.model, AdapterSettings(per_stage="new"), 2, 0)
    make_method("freeze", {}, 0).adapt(learner, SECOND)
    assert _layers(learner) == {"1"}
    assert all(".stage-02." in name for name in learner.trainable())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_frozen_layers_stay_and_the_others_learn(adapted: Adapted, few_examples: Any, kind: str) -> None:
    learner, method = adapted(kind=kind), make_method("freeze", {}, 0)
    method.adapt(learner, SECOND)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    fit(
        learner,
        few_examples["near"],
        method,
        TrainingSettings(batch_size=4, weight_decay=0.1),
        accelerator=Accelerator(cpu=True),
        epochs=1,
        learning_rate=0.01,
        seed=0,
        on_step=lambda step: None,
    )
    moved = {name for name, p in learner.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(learner.trainable())


def test_share_0_freezes_nothing_and_1_leaves_full_fine_tuning_its_head(adapted: Adapted) -> None:
    learner = adapted(kind="full")
    everything = set(learner.trainable())
    make_method("freeze", {"share": 0}, 0).adapt(learner, SECOND)
    assert set(learner.trainable()) == everything
    make_method("freeze", {"share": 1}, 0).adapt(learner, SECOND)
    assert _layers(learner) == {"norm", "lm_head"}


def test_with_lora_something_must_be_left_to_learn(adapted: Adapted) -> None:
    method = make_method("freeze", {"share": 1}, 0)
    with pytest.raises(UserError, match=r"method\.share: 1 freezes everything that LoRA adapts"):
        method.check(AdapterSettings())
    method.check(AdapterSettings(kind="full"))
    nearly = make_method("freeze", {"share": 0.9}, 0)  # of two layers both
    with pytest.raises(UserError, match=r"method\.share: 0\.9 freezes all that is trained in the 2 layers"):
        nearly.adapt(adapted(), SECOND)
    nearly.check(AdapterSettings())
    with pytest.raises(UserError, match=r"method\.share: 0\.9 freezes all that is trained in the 2 layers"):
        nearly.check_model(adapted())  # before anything is scored


def test_layers_that_learn_and_are_frozen_all_are_refused_before_the_run(adapted: Adapted) -> None:
    method = make_method("freeze", {"layers": [1]}, 0)
    method.check(AdapterSettings(layers={"top": 1}))
    with pytest.raises(UserError, match=r"method\.layers: \(1,\) freezes all that is trained"):
        method.check_model(adapted())
    auto = make_method("freeze", {"layers": "auto"}, 0)
    auto.check(AdapterSettings(layers={"top": 1}))
    with pytest.raises(UserError, match=r"method\.layers: auto .* adapter\.layers lets one learn"):
        auto.check_model(adapted())
    for options, adapter in (
        ({"layers": "auto"}, AdapterSettings()),
        ({"layers": [0]}, AdapterSettings(layers={"top": 1})),
        ({"layers": [0, 1]}, AdapterSettings(kind="full")),
        ({"share": 0.5}, AdapterSettings()),
    ):
        fine = make_method("freeze", options, 0)
        fine.check(adapter)
        fine.check_model(adapted())


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(UserError, match=r"method\.share: "):
        make_method("freeze", {"share": share}, 0)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=4),
        GPTNeoXConfig(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4),
        FalconConfig(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=False),
        OPTConfig(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=48),
    ],
    ids=lambda config: config.model_type,
)
def test_layers_are_found_whatever_they_are_called(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    layers = decoder_layers(model)
    inside = {id(value) for value in layers.parameters()}
    assert len(layers) == 3
    assert inside == {id(value) for name, value in model.named_parameters() if re.search(r"\.\d\.", name)}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_layers_that_are_named_are_frozen_from_the_start(adapted: Adapted, kind: str) -> None:
    learner = adapted(kind=kind)
    make_method("freeze", {"layers": [1]}, 0).adapt(learner, Stage(1, ("animal",)))
    assert _layers(learner) == ({"0"} if kind == "lora" else {"0", "embed_tokens", "norm", "lm_head"})
    make_method("freeze", {"layers": [0]}, 0).adapt(learner := adapted(kind=kind), SECOND)
    assert "embed_tokens" not in _layers(learner)
    with pytest.raises(UserError, match="has 2 layers, counted from 0; at most 1"):
        make_method("freeze", {"layers": [2]}, 0).check_model(learner)
    with pytest.raises(UserError, match="freezes all that is trained in the 2 layers"):
        make_method("freeze", {"layers": [0, 1]}, 0).adapt(adapted(), SECOND)
    with pytest.raises(UserError, match="layers takes the place of share and warm_up"):
        make_method("freeze", {"layers": [0], "share": 0.25}, 0)


def test_auto_freezes_what_an_earlier_stage_rewrote_and_frees_it_when_the_map_says_otherwise(
    adapted: Adapted, wordings: Mapping[str, Wording]
) -> None:
    learner, method = adapted(), make_method("freeze", {"layers": "auto"}, 0)
    first = Stage(1, ("animal",), wordings=wordings)
    method.adapt(learner, first)
    assert _layers(learner) == {"0", "1"}
    method.begin(learner, first)
    _shift(learner, 1)
    method.end(learner, first)
    (change,) = method.state_dict()["changes"]
    assert change[0] == pytest.approx(0, abs=1e-3)
    assert change[1] > 0.05
    again = make_method("freeze", {"layers": "auto"}, 0)
    again.load_state_dict(method.state_dict())
    for one in (method, again):
        learner.model = adapt(learner.model, AdapterSettings(), 2, 0)
        one.adapt(learner, SECOND)
        assert _layers(learner) == {"0"}
    method.load_state_dict({"changes": [[1.0, 0.0]]})
    learner.model = adapt(learner.model, AdapterSettings(), 3, 0)
    method.adapt(learner, Stage(3, ("size",)))
    assert _layers(learner) == {"1"}


def test_auto_needs_inputs_that_are_held_out(adapted: Adapted, wordings: Mapping[str, Wording]) -> None:
    few = {
        name: replace(one, task=replace(one.task, select=one.task.select[:3]))
        for name, one in wordings.items()
    }
    with pytest.raises(UserError, match="animal has 3 examples with a prompt in its select split"):
        make_method("freeze", {"layers": "auto"}, 0).begin(adapted(), Stage(1, ("animal",), wordings=few))


def _shift(learner: Learner, layer: int) -> None:
    """Change the adapters of one layer."""
    with torch.no_grad():
        for name, value in learner.trainable().items():
            if f"layers.{layer}." in name:
                value += torch.randn_like(value)


@pytest.fixture
def wordings(learner: Learner, tiny_tasks: Mapping[str, Path]) -> Mapping[str, Wording]:
    """Of the task `animal`."""
    (task,) = load_tasks([str(tiny_tasks["animal"])], None)
    prompt = choose_prompt(task, "default")
    return {"animal": Wording(task, prompt, task.train, learner.tokenizer, 128)}
