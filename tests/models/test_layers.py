"""Which layers learn: `adapter.layers`."""

from typing import Any

import pytest
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt, kind_of
from forgetmenot.models.layers import first_learning
from forgetmenot.models.settings import AdapterSettings
from tests.engine.test_forward import ON_THE_TRIE


def model(name: str) -> Any:
    return AutoModelForCausalLM.from_config(ON_THE_TRIE[name]())


def learning(adapted: Any) -> set[str]:
    return {name for name, value in adapted.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", ON_THE_TRIE)
@pytest.mark.parametrize("layers", [{"top": 1}, {"from": 2}])
def test_lora_lies_in_the_upper_layers_alone(name: str, layers: Any) -> None:
    whole = learning(adapt(model(name), AdapterSettings(), 1, 0))
    adapted = adapt(model(name), AdapterSettings(layers=layers), 1, 0)
    upper = {one for one in whole if ".2." in one}
    assert upper
    assert learning(adapted) == upper


@pytest.mark.parametrize("per_stage", ["new", "merge"])
def test_later_stages_too(per_stage: Any) -> None:
    settings = AdapterSettings(layers={"top": 1}, per_stage=per_stage)
    first = kind_of(settings).finish(adapt(model("llama"), settings, 1, 0), settings)
    second = adapt(first, settings, 2, 0)
    assert isinstance(second, PeftModel)
    names = learning(second)
    assert len(names) == 14, "A and B of seven linear layers"
    assert all(".layers.2." in name for name in names)


def test_named_targets_are_taken_in_the_upper_layers() -> None:
    settings = AdapterSettings(targets=["q_proj"], layers={"top": 2})
    names = learning(adapt(model("llama"), settings, 1, 0))
    assert {name.split(".layers.")[1][:1] for name in names} == {"1", "2"}
    assert all("q_proj" in name for name in names)


@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_full_fine_tuning_leaves_what_lies_below(name: str) -> None:
    plain = model(name)
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    names = learning(adapt(plain, AdapterSettings(kind="full", layers={"top": 1}), 1, 0))
    assert not any("emb" in one or "wte" in one or "wpe" in one for one in names)
    assert not any(".0." in one or ".1." in one for one in names)
    assert any("norm" in one or "ln_f" in one for one in names), "the final norm learns"
    head = {one for one, value in plain.named_parameters() if value is plain.get_output_embeddings().weight}
    assert (head & names == set()) if tied else head <= names


@pytest.mark.parametrize(
    ("layers", "first"), [("all", 0), ({"top": 3}, 0), ({"top": 1}, 2), ({"from": 0}, 0), ({"from": 2}, 2)]
)
def test_the_first_that_learns(layers: Any, first: int) -> None:
    assert first_learning(model("llama"), layers) == first


@pytest.mark.parametrize(
    ("layers", "wrong"),
    [({"top": 4}, "top: 4: this model has 3 layers; at most 3"), ({"from": 3}, "at most 2")],
)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_more_layers_than_there_are(kind: str, layers: Any, wrong: str) -> None:
    settings = AdapterSettings(kind=kind, layers=layers)
    with pytest.raises(UserError, match=wrong):
        kind_of(settings).check(model("llama"), settings)


def test_a_target_above_the_layers_is_refused() -> None:
    settings = AdapterSettings(targets=["lm_head"], layers={"top": 1})
    untied = AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
        )
    )
    with pytest.raises(UserError, match="'lm_head' lies in none of the layers that learn"):
        kind_of(settings).check(untied, settings)


GIVE = r"adapter\.layers: give all, \{top: k\}, \{from: i\} or \{auto: RUN_DIR\}"


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"layers": {"top": 0}}, "lets nothing learn"),
        ({"layers": {"top": 1, "from": 2}}, "give all"),
        ({"layers": {}}, "give all"),
        (
            {"layers": {"bottom": 3}},
            r"adapter\.layers: give all, \{top: k\}, \{from: i\} or \{auto: RUN_DIR\}, not ",
        ),
        (
            {"layers": "some"},
            r"adapter\.layers: give all, \{top: k\}, \{from: i\} or \{auto: RUN_DIR\}, not 'some'",
        ),
        ({"layers": 3}, r"adapter\.layers: give all, \{top: k\}, \{from: i\} or \{auto: RUN_DIR\}, not 3"),
        ({"layers": {"top": -1}}, r"adapter\.layers"),
        ({"kind": "prompt", "layers": {"top": 3}}, "layers has no effect with kind: prompt"),
        ({"frozen_cache_gb": 3}, "frozen_cache_gb has no effect with layers: all"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        load_config(
            None, {f"adapter.{key}": value for key, value in settings.items()} | {"model": "quickstart"}
        )


def test_in_words() -> None:
    assert AdapterSettings(layers={"top": 10}).in_words == "LoRA, rank 8, top 10 layers"
    assert AdapterSettings(kind="full", layers={"from": 4}).in_words == "full fine-tuning, layers from 4 on"
