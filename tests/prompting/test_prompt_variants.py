from collections.abc import Mapping
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import choose_prompt, known_prompts, prompts_of
from forgetmenot.tasks.task import Kind, Task

GLUE = {
    "sst2": (("negative", "positive"), {"sentence"}),
    "mrpc": (("not_equivalent", "equivalent"), {"sentence1", "sentence2"}),
    "cola": (("unacceptable", "acceptable"), {"sentence"}),
    "mnli": (("entailment", "neutral", "contradiction"), {"premise", "hypothesis"}),
    "mnli_mismatched": (("entailment", "neutral", "contradiction"), {"premise", "hypothesis"}),
    "qnli": (("entailment", "not_entailment"), {"question", "sentence"}),
    "rte": (("entailment", "not_entailment"), {"sentence1", "sentence2"}),
    "qqp": (("not_duplicate", "duplicate"), {"question1", "question2"}),
    "wnli": (("not_entailment", "entailment"), {"sentence1", "sentence2"}),
    "stsb": (tuple("012345"), {"sentence1", "sentence2"}),
}


def task(name: str = "mine", kind: Kind = "choice", prompts: Mapping[str, Any] | None = None) -> Task:
    return Task(name, kind, "accuracy", [], [], [], labels=("a", "b"), prompts=prompts or {})


@pytest.mark.parametrize("name", list(GLUE))
def test_each_bundled_task_has_its_variants_labels_and_fields(name: str) -> None:
    labels, fields = GLUE[name]
    prompts = prompts_of(task(name))
    assert {"default", "plain", "instruction", "flan-1", "flan-2", "definition", "chat"} <= prompts.keys()
    for variant, prompt in prompts.items():
        assert prompt.name == variant
        assert set(prompt.choices) == set(labels)
        assert prompt.fields == fields
        assert prompt.chat == (variant == "chat")
        assert prompt.separator == ("" if variant == "chat" else " ")
    assert known_prompts()[name] == tuple(prompts)


def test_variants_of_a_task_differ_and_every_one_can_be_chosen() -> None:
    for name, variants in known_prompts().items():
        assert len({choose_prompt(task(name), variant).hash for variant in variants}) == len(variants)


def test_prompts_of_ones_own_win_over_bundled_ones() -> None:
    own = {
        "mine": {
            "template": "{{ sentence }}",
            "choices": {"a": "x", 0: 1},
            "end": "\n",
            "truncate": ["sentence"],
        }
    }
    prompt = choose_prompt(task("sst2", prompts=own), "mine")
    assert prompt.choices == {"a": "x", "0": "1"}
    assert (prompt.end, prompt.truncate, prompt.separator) == ("\n", ("sentence",), " ")


@pytest.mark.parametrize("kind", ["messages", "text"])
def test_conversations_and_texts_bring_their_own_words(kind: Kind) -> None:
    prompt = choose_prompt(task(kind=kind), "default")
    assert prompt.chat == (kind == "messages")
    with pytest.raises(UserError, match=rf"prompts are not used for {kind}"):
        prompts_of(task(kind=kind, prompts={"default": {"template": ""}}))


def test_a_variant_that_a_task_lacks_names_those_it_has() -> None:
    with pytest.raises(
        UserError, match=r"task 'sst2' has no prompt 'chatt'. Did you mean 'chat'\? Known: chat, "
    ):
        choose_prompt(task("sst2"), "chatt")


def test_a_task_without_any_prompt_says_what_to_give_it() -> None:
    with pytest.raises(UserError, match=r"task 'mine' has no prompt: give it `prompts`"):
        prompts_of(task())


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ({"template": "x", "choise": {}}, r"unknown key 'choise'. Did you mean 'choices'\?"),
        ({"choices": {"a": "x"}}, r"the key `template` is missing"),
        ("just text", r"a variant is a map with a template"),
        ({"template": 1.5}, r"`template` must be text, not 1.5"),
        (
            {"template": "x", "choices": {"a": True}},
            r"`choices.a` is read by YAML as true; put the word in quotes",
        ),
        ({"template": "x", "choices": {False: "x"}}, r"a label of `choices` is read by YAML as false"),
        ({"template": "x", "choices": ["a", "b"]}, r"`choices` must map each label"),
        ({"template": "x", "chat": "yes"}, r"`chat` is true or false"),
        ({"template": "x", "system": "Be brief."}, r"`system` is used in chat only"),
        ({"template": "{{ x }}", "truncate": "x"}, r"`truncate` is a list"),
        (
            {"template": "{{ x }}", "truncate": ["y"]},
            r"`truncate` names 'y', which the template does not use",
        ),
        ({"template": "{% if %}"}, r"line 1 is not valid Jinja"),
    ],
)
def test_a_variant_that_is_not_well_formed_is_named(variant: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        prompts_of(task(prompts={"odd": variant}))
    assert "'odd'" in str(caught.value)
