"""Prompts and answers that do not fit: which end stays, and what a generated answer is left."""

from collections.abc import Callable
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoded, Encoder, Prompt
from forgetmenot.tasks import Example, Task

CUT = Prompt("default", "Start {{ text }} End:", separator="", keep="end", cut_answer=True)


@pytest.fixture
def encode(tokenizer_named: Callable[[str], Any]) -> Callable[..., Encoded]:
    """Of one byte a token, so that lengths are seen; BOS in front."""

    def encode(
        text: str, target: str, length: int, reserved: int | None = None, prompt: Prompt = CUT
    ) -> Encoded:
        example = Example("train-0", {"text": text}, target=target)
        task = Task("mine", "answer", "exact_match", [example], [], [])
        return Encoder(task, prompt, tokenizer_named("bytes"), length, reserved).encode(example)

    return encode


@pytest.fixture
def decode(tokenizer_named: Callable[[str], Any]) -> Callable[..., str]:
    return lambda tokens: str(tokenizer_named("bytes").decode(tokens, skip_special_tokens=True))


def test_the_end_of_a_field_stays_where_the_prompt_says_so(
    encode: Callable[..., Encoded], decode: Callable[..., str]
) -> None:
    found = encode("x" * 100 + "last", "yes", 24)
    assert decode(found.prompt).endswith("last End:")
    assert decode(found.prompt).startswith("Start ")
    assert len(found.answer.tokens) == 24
    assert found.cut == len("Start " + "x" * 100 + "last" + " End:yes") + 2 - 24
    other = encode("first" + "x" * 100, "yes", 24, prompt=Prompt("default", CUT.template, separator=""))
    assert decode(other.prompt).startswith("Start first")


def test_an_answer_is_cut_to_what_the_prompt_leaves_free_and_then_has_no_end(
    encode: Callable[..., Encoded], decode: Callable[..., str], tokenizer_named: Callable[[str], Any]
) -> None:
    eos = tokenizer_named("bytes").eos_token_id
    short = encode("ab", "y" * 200, 60)  # the prompt fits whole: 1 + 13 tokens
    assert decode(short.prompt) == "Start ab End:"
    assert len(short.answer.tokens) == 60
    assert eos not in short.answer.tokens
    assert short.cut == 14 + 200 - 60

    both = encode("a" * 100, "y" * 200, 60)  # a third of 60 is the answer's
    assert both.answer.start == 40
    assert len(both.answer.tokens) == 60
    assert eos not in both.answer.tokens

    fits = encode("a" * 100, "y" * 15, 60)
    assert fits.answer.tokens[-1] == eos
    assert len(fits.answer.tokens) == 60


def test_a_generated_answer_has_the_same_room_whatever_the_gold_one_is(
    encode: Callable[..., Encoded],
) -> None:
    prompts = {encode("a" * 100, gold, 60, reserved=20).prompt for gold in ("y", "y" * 15, "y" * 300, "")}
    assert {len(prompt) for prompt in prompts} == {40}
    assert len(prompts) == 1
    assert encode("a" * 10, "y" * 300, 60, reserved=20).cut == 0
    assert encode("a" * 100, "y", 60, reserved=20).cut == 1 + 111 - 40


def test_an_empty_answer_is_learned_as_its_end(
    encode: Callable[..., Encoded], tokenizer_named: Callable[[str], Any]
) -> None:
    found = encode("ab", "", 60)
    assert found.answer.tokens[found.answer.start :] == (tokenizer_named("bytes").eos_token_id,)


def test_an_answer_may_be_learned_without_its_end(
    encode: Callable[..., Encoded], decode: Callable[..., str], tokenizer_named: Callable[[str], Any]
) -> None:
    eos = tokenizer_named("bytes").eos_token_id
    open_end = Prompt("default", CUT.template, separator="", eos=False)
    closed, found = (encode("ab", "yes", 60, prompt=one) for one in (CUT, open_end))
    assert closed.answer.tokens == (*found.answer.tokens, eos)
    assert closed.answer.start == found.answer.start
    assert decode(found.answer.tokens[found.answer.start :]) == "yes"
    assert found.prompt == closed.prompt
    with pytest.raises(UserError, match=r"example 'train-0': its answer is empty, and with `eos: false`"):
        encode("ab", "", 60, prompt=open_end)


def test_an_end_is_left_out_of_free_answers_alone() -> None:
    example = Example("train-0", {"text": "a"}, label="x")
    task = Task("mine", "choice", "accuracy", [example], [], [], labels=("x", "y"))
    with pytest.raises(UserError, match="`eos` is for free answers"):
        Encoder(task, Prompt("default", CUT.template, {"x": "x", "y": "y"}, eos=False), None, 60)


def test_the_hash_of_a_prompt_with_an_end_is_what_it_was() -> None:
    assert Prompt("default", "{{ text }}").hash == "6dacff965cfdc6b0"
    assert Prompt("default", "{{ text }}", eos=False).hash != "6dacff965cfdc6b0"


def test_nothing_else_is_cut(encode: Callable[..., Encoded]) -> None:
    whole = Prompt("default", CUT.template, separator="")
    with pytest.raises(UserError, match=r"example 'train-0': .* max_length is 60"):
        encode("ab", "y" * 200, 60, prompt=whole)
    example = Example("train-0", {"text": "a"}, label="x")
    task = Task("mine", "choice", "accuracy", [example], [], [], labels=("x", "y"))
    prompt = Prompt("default", CUT.template, {"x": "x", "y": "y"}, cut_answer=True)
    with pytest.raises(UserError, match="`cut_answer` is for free answers"):
        Encoder(task, prompt, None, 60)
