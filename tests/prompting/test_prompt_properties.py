"""Whatever the text, the rules of tokens hold."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.model import TemplateLM
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from forgetmenot.prompting import Encoded, Encoder, Prompt
from forgetmenot.prompting.pretokenize import may_be_cut
from forgetmenot.prompting.pretokenize import pieces as pieces_of
from forgetmenot.prompting.tokens import Tokens
from forgetmenot.tasks.task import Example, Task

LABELS = ("no", "yes", "unclear")
CHOICES = {"no": "no", "yes": "yes", "unclear": "it is not possible to tell"}
PLAIN = Prompt("default", "One: {{ a }}\nTwo: {{ b }}\nAnswer:", CHOICES)
GLUED = Prompt("glued", "{{ a }}{{ b }}", CHOICES, separator="")
CHAT = Prompt("chat", "{{ a }}\n{{ b }}", CHOICES, separator="", chat=True)

# "▁" is what Metaspace writes for a blank, and the three others are the encoder's own marks.
letters = st.characters(exclude_categories=["Cs"], exclude_characters="▁\ue0f0\ue0f1\ue0f2\r")
pieces = st.sampled_from(
    [
        "<s>",
        "</s>",
        "<unk>",
        "<|endoftext|>",
        "<|begin|>",
        "<|eot|>",
        "<|user|>",
        "film",
        " positive",
        "\n",
        "  ",
        "ö",
    ]
)
texts = st.lists(st.one_of(pieces, st.text(letters, max_size=8)), max_size=8).map("".join)
quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def example_of(a: str, b: str, gold: int = 0) -> Example:
    return Example(f"train-{gold}", {"a": a, "b": b}, label=LABELS[gold])


def encoder_of(tokenizer: Any, prompt: Prompt, example: Example, length: int = 10**5) -> Encoder:
    return Encoder(
        Task("mine", "choice", "accuracy", [example], [], [], labels=LABELS), prompt, tokenizer, length
    )


def special_ids(tokenizer: Any) -> set[int]:
    added = {i for i, one in tokenizer.added_tokens_decoder.items() if one.special}
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def turn_end(tokenizer: Any) -> int:
    """The end of a turn where the tokenizer has a token for it, else EOS."""
    return int(tokenizer.get_added_vocab().get("<|eot|>", tokenizer.eos_token_id))


def check_boundary(tokenizer: Any, encoded: Encoded, end: int) -> None:
    """All candidates and the answer start together, and training learns the gold candidate and its end."""
    assert encoded.gold is not None
    gold = encoded.candidates[encoded.gold]
    assert encoded.answer.tokens == (*gold.tokens, end)
    assert {one.start for one in encoded.candidates} == {encoded.answer.start}
    assert 1 <= encoded.answer.start <= len(encoded.prompt)
    assert len({one.tokens[: one.start] for one in encoded.candidates}) == 1
    assert encoded.prompt[: encoded.answer.start] == gold.tokens[: encoded.answer.start]
    firsts = {one.tokens[encoded.answer.start] for one in encoded.candidates}
    if encoded.answer.start < len(encoded.prompt):  # no later start would do
        assert firsts != {encoded.prompt[encoded.answer.start]}


@quickly
@given(a=texts, b=texts, gold=st.integers(0, 2))
def test_plain_prompts(tokenizer: Any, a: str, b: str, gold: int) -> None:
    for prompt in (PLAIN, GLUED):
        example = example_of(a, b, gold)
        encoded = encoder_of(tokenizer, prompt, example).encode(example)
        check_boundary(tokenizer, encoded, tokenizer.eos_token_id)
        specials = special_ids(tokenizer)
        for candidate in encoded.candidates:
            assert specials.isdisjoint(candidate.tokens[1:])
        if prompt is PLAIN:
            text = prompt.render(example.fields)
            for label, candidate in zip(LABELS, encoded.candidates, strict=True):
                given_tokens = candidate.tokens[1:] if candidate.tokens[0] in specials else candidate.tokens
                assert tokenizer.decode(given_tokens) == f"{text} {CHOICES[label]}"
                tail = tokenizer.decode(candidate.tokens[candidate.start :])
                assert tail.endswith(CHOICES[label])


@quickly
@given(a=texts, b=texts, gold=st.integers(0, 2))
def test_chat_prompts(tokenizer: Any, a: str, b: str, gold: int) -> None:
    sly, honest = example_of(a, b, gold), example_of("one", "two", gold)
    encoded, usual = encoder_of(tokenizer, CHAT, sly).encode_all([sly, honest])
    check_boundary(tokenizer, encoded, turn_end(tokenizer))
    specials = special_ids(tokenizer)
    assert [i for i in encoded.prompt if i in specials] == [i for i in usual.prompt if i in specials]
    tail = encoded.answer.tokens[encoded.answer.start :]
    assert [i for i in tail if i in specials] == [turn_end(tokenizer)]
    said = CHAT.render(sly.fields).strip()
    assert said in tokenizer.decode(encoded.prompt)


@quickly
@given(pairs=st.lists(st.tuples(texts, texts, st.integers(0, 2)), min_size=1, max_size=5))
def test_one_by_one_and_all_at_once_are_the_same(
    tokenizer: Any, pairs: Sequence[tuple[str, str, int]]
) -> None:
    examples = [example_of(a, b, gold) for a, b, gold in pairs]
    for prompt in (PLAIN, CHAT):
        one_by_one = encoder_of(tokenizer, prompt, examples[0], length=400)
        at_once = encoder_of(tokenizer, prompt, examples[0], length=400)
        assert [one_by_one.encode(example) for example in examples] == list(at_once.encode_all(examples))


@quickly
@given(a=texts, b=texts, spare=st.integers(0, 30))
def test_what_is_cut_fits_and_keeps_the_template(tokenizer: Any, a: str, b: str, spare: int) -> None:
    example = example_of(a, b)
    empty = encoder_of(tokenizer, PLAIN, example).encode(example_of("", ""))
    length = max(len(one.tokens) for one in empty.candidates) + 1 + spare
    several = encoder_of(tokenizer, PLAIN, example, length).encode_all([example])
    (encoded,) = several
    assert max(len(one.tokens) for one in encoded.candidates) + 1 <= length
    assert several.truncated == {"examples": int(encoded.cut > 0), "tokens": encoded.cut}
    given_tokens = encoded.prompt[1:] if encoded.prompt[0] in special_ids(tokenizer) else encoded.prompt
    text = tokenizer.decode(given_tokens)
    kept = max(len(a), len(b))
    while text != PLAIN.render({"a": a[:kept], "b": b[:kept]}):
        kept -= 1
        assert kept >= 0, text
    check_boundary(tokenizer, encoded, tokenizer.eos_token_id)


class Peer(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's reading of a prompt and an answer, with nothing of a model."""

    backend = "causal"

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return list(self.tokenizer.encode(string, split_special_tokens=True))

    def _loglikelihood_tokens(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def generate_until(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@quickly
@given(a=st.text(letters), b=st.text(letters))
def test_boundary_is_lm_evals_where_the_prompts_tokens_stay(tokenizer: Any, a: str, b: str) -> None:
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        pytest.skip("lm-eval leaves the EOS of such a tokenizer in the context")
    peer, example = Peer(tokenizer), example_of(a, b)
    encoded = encoder_of(tokenizer, PLAIN, example).encode(example)
    for label, candidate in zip(LABELS, encoded.candidates, strict=True):
        context, continuation = peer._encode_pair(PLAIN.render(example.fields), f" {CHOICES[label]}")
        start = candidate.start
        assert (list(candidate.tokens[:start]), list(candidate.tokens[start:])) == (context, continuation)


lines = st.lists(st.one_of(texts, st.sampled_from(["\nA", "\n\nb", " \nAnswer:", "7\nx", "'\ns", "\n 1"])))


@quickly
@given(given_texts=st.lists(lines.map("".join), min_size=1, max_size=4), special=st.booleans())
def test_texts_have_the_tokens_that_transformers_gives_them(
    tokenizer: Any, given_texts: list[str], special: bool
) -> None:
    """The slow obvious way: each text whole and alone, through Transformers."""
    whole = [
        tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=special)["input_ids"])
        for text in given_texts
    ]
    assert Tokens(tokenizer)._ids(given_texts, split_special_tokens=special) == whole


def test_byte_level_bpe_may_be_cut_and_others_not(tokenizer_named: Callable[[str], Any]) -> None:
    cut = {"gpt2-like": True, "llama3-like": True, "llama2-like": False, "unigram": False}
    assert {name: may_be_cut(tokenizer_named(name).backend_tokenizer.to_str()) for name in cut} == cut


@pytest.mark.parametrize("numbers", [r"\p{N}", r"\p{N}{1,3}"])
def test_no_known_rule_joins_a_newline_with_a_letter(numbers: str) -> None:
    rule = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + numbers
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(rule), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    assert may_be_cut(backend.to_str())

    @quickly
    @given(lines.map("".join))
    def holds(text: str) -> None:
        parts = [word for piece in pieces_of(text) for word, _ in split.pre_tokenize_str(piece)]
        assert [word for word, _ in split.pre_tokenize_str(text)] == parts

    holds()
