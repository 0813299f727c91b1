"""Requests of lm-eval, answered through the trie, against lm-eval's own Hugging Face model."""

from pathlib import Path
from typing import Any

import pytest

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from tests.probes.conftest import load

lm_eval = pytest.importorskip("lm_eval")

FEW_SHOTS = "The following are words and kinds.\n\n" + "".join(
    f"Word: {word}\nKind: {kind}\n\n" for word, kind in (("puppy", "dog"), ("kitten", "cat"))
)
PAIRS = [
    (FEW_SHOTS + "Word: hound\nKind:", " dog"),
    (FEW_SHOTS + "Word: hound\nKind:", " cat"),
    (FEW_SHOTS + "Word: tabby\nKind:", " a cat, of course"),
    ("", "no context at all"),
    ("a blank stands at the end ", "here"),
    ("<|endoftext|>begins with the prefix token", " itself"),
    ("longer than the model has positions for: " * 9, " and then"),
    ("über", " naïve — ça"),
]


def instances(kind: str, arguments: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


@pytest.fixture(scope="module")
def theirs(tiny_llama: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(tiny_llama), device="cpu", dtype="float32", batch_size=3)
    # What a chat model's checkpoint says, and here is read off the template as well.
    ends = [model.tokenizer.convert_tokens_to_ids(one) for one in ("<|endoftext|>", "<|end|>")]
    model.model.generation_config.eos_token_id = ends
    return model


@pytest.fixture
def ours(learner: Learner) -> Any:
    from forgetmenot.probes.shared.lm_eval_model import LearnerLM

    return LearnerLM(learner)


def likeliest(model: Any, context: str) -> str:
    (text,) = model.generate_until(instances("generate_until", [(context, {"max_gen_toks": 3})]))
    return str(text)


def test_likelihoods_and_greedy_equal_theirs(ours: Any, theirs: Any) -> None:
    written = ("Word: sea\nKind:", likeliest(theirs, "Word: sea\nKind:"))
    asked = instances("loglikelihood", [*PAIRS, written])
    wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert found[-1][1]
    assert ours.cut == 1


def test_prefixes_are_shared(ours: Any) -> None:
    ours.loglikelihood(instances("loglikelihood", PAIRS[:3]))
    assert ours.learner.counts["computed"] < ours.learner.counts["without_sharing"] / 2


def test_whole_texts_equal_theirs_also_where_they_take_several_windows(ours: Any, theirs: Any) -> None:
    asked = instances("loglikelihood_rolling", [("a short one",), ("a text with many words " * 20,)])
    found = ours.loglikelihood_rolling(asked)
    assert found == pytest.approx(theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-3)
    assert found[1] < found[0]


def test_answers_equal_theirs(ours: Any, theirs: Any) -> None:
    settings = [
        {"until": ["e"], "max_gen_toks": 12},
        {"until": [], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0},
        {"until": ["\n\n", "Q"], "max_gen_toks": 40},
    ]
    asked = [(context, one) for one in settings for context, _ in PAIRS if context]
    found = ours.generate_until(instances("generate_until", asked))
    assert found == theirs.generate_until(instances("generate_until", asked), disable_tqdm=True)
    assert any(found)
    assert all("e" not in text for text in found[:7])


def test_chats_are_written_as_theirs(ours: Any, theirs: Any) -> None:
    turns = [{"role": "user", "content": "a word"}, {"role": "assistant", "content": "It"}]
    for chat, opens in ((turns, False), (turns[:1], True)):
        assert ours.apply_chat_template(chat, opens) == theirs.apply_chat_template(chat, opens)


def test_what_would_be_drawn_or_has_no_room_is_refused(ours: Any) -> None:
    with pytest.raises(UserError, match="samples its answers"):
        ours.generate_until(instances("generate_until", [("a", {"do_sample": True, "temperature": 0.7})]))
    with pytest.raises(UserError, match="write 128 tokens, but it has 128 positions"):
        ours.generate_until(instances("generate_until", [("a", {"max_gen_toks": 128})]))


def test_a_trained_model_answers_real_questions_as_theirs(shared: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    from forgetmenot.probes.shared.lm_eval_model import LearnerLM

    folder = shared / "models" / "base-4m"
    pairs = [
        (f"{FEW_SHOTS}Question: what is {k} and {k + 1}?\nAnswer:", f" {a}") for k in range(6) for a in "AB"
    ]
    asked = instances("loglikelihood", [*PAIRS, *pairs])
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    found = LearnerLM(load(folder)).loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
