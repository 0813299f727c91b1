"""Many tasks and very long texts: what is done grows with them, and no faster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.prompting import Encoder, Prompt, encode_cached, tokens
from forgetmenot.prompting.pretokenize import pieces
from forgetmenot.prompting.tokens import Tokens
from forgetmenot.tasks import Example, Task

CHOICES = {"negative": "negative", "positive": "positive"}
PROMPT = Prompt("default", "Review: {{ sentence }}\nSentiment:", CHOICES)


def task(name: str, sentence: str = "a film") -> Task:
    """A task of one example."""
    return Task(
        name, "choice", "accuracy", [Example("0", {"sentence": sentence}, "negative")], [], [], tuple(CHOICES)
    )


def test_a_tokenizer_is_learned_once_for_all_tasks(
    tokenizer_named: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    learned: list[Any] = []

    def learn(tokenizer: Any) -> Tokens:
        learned.append(tokenizer)
        return Tokens(tokenizer)

    monkeypatch.setattr(tokens, "Tokens", learn)
    tokens._learned.cache_clear()
    for count in (5, 10):
        for k in range(count):
            one = task(f"task-{count}-{k}")
            encode_cached(one, PROMPT, tokenizer_named("gpt2-like"), 40, one.train)
    assert len(learned) == 1


def test_a_tokenizer_with_another_chat_template_is_learned_anew(
    tokenizer_named: Callable[[str], Any],
) -> None:
    tokenizer = tokenizer_named("gpt2-like")
    before = tokens.tokens_of(tokenizer)
    tokenizer.chat_template = "{% for turn in messages %}<{{ turn.content }}>{% endfor %}"
    assert tokens.tokens_of(tokenizer) is not before
    assert tokens.tokens_of(tokenizer).turn_end[0] == ">"


def test_the_cache_is_not_listed_for_each_file(
    tokenizer_named: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    listed: list[Path] = []

    def listing(folder: Path, _: str) -> list[Path]:
        listed.append(folder)
        return []

    monkeypatch.setattr(Path, "glob", listing)
    for k in range(20):
        one = task(f"task-{k}")
        encode_cached(one, PROMPT, tokenizer_named("gpt2-like"), 40, one.train)
    assert len(list(tmp_path.iterdir())) == 20
    assert len(listed) == 1


@pytest.mark.parametrize("name", ["gpt2-like", "llama3-like"])
def test_a_very_long_text_has_the_tokens_of_its_parts(
    name: str, tokenizer_named: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "it's  a film, of 1999 parts ; n't DULL. déjà vu\t" * 5000
    assert "".join(pieces(text)) == text
    assert len(pieces(text)) > 2
    known = Tokens(tokenizer_named(name))
    found = known.plain([text])
    monkeypatch.setattr(known, "_may_be_cut", False)
    assert known.plain([text]) == found


def test_how_much_of_a_very_long_text_fits_is_found_without_its_tokens(
    tokenizer_named: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_named("gpt2-like")
    letters: dict[int, int] = {}
    plain = Tokens.plain
    fits = {}
    for repeats in (10_000, 20_000):
        one = task("mine", "a rather dull film, " * repeats)
        asked: list[str] = []
        monkeypatch.setattr(
            Tokens, "plain", lambda s, texts, asked=asked: asked.extend(texts) or plain(s, texts)
        )
        fits[repeats] = Encoder(one, PROMPT, tokenizer, 40).encode(one.train[0])
        whole = len("a rather dull film, ") * repeats
        letters[repeats] = sum(len(text) for text in asked) - 3 * whole
    assert letters[20_000] < 1.2 * letters[10_000], "beyond the whole text, whose tokens are counted once"
    assert fits[10_000].answer == fits[20_000].answer
    monkeypatch.setattr(Encoder, "_surely_too_long", lambda *_: False)
    one = task("mine", "a rather dull film, " * 10_000)
    assert Encoder(one, PROMPT, tokenizer, 40).encode(one.train[0]) == fits[10_000]
