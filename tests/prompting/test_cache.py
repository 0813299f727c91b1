"""Cached tokens are fresh tokens, whatever happened to the files."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoder, Prompt, encode_cached, encoded_cache
from forgetmenot.tasks import Example, Task

CHOICES = {"negative": "negative", "positive": "positive"}
PROMPT = Prompt("default", "Review: {{ sentence }}\nSentiment:", CHOICES)
EXAMPLES = [
    Example(f"train-{k}", {"sentence": f"a film of {k} parts, {'dull' * k}"}, label=list(CHOICES)[k % 2])
    for k in range(12)
]
TASK = Task("mine", "choice", "accuracy", EXAMPLES, [], [], labels=tuple(CHOICES))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cached_is_fresh(tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(TASK, PROMPT, tokenizer, 30)
    fresh = [encoder.encode(example) for example in EXAMPLES]
    assert list(encode_cached(TASK, PROMPT, tokenizer, 30, EXAMPLES)) == fresh
    if not folder.exists():
        assert getattr(tokenizer, "backend_tokenizer", None) is None
        return
    monkeypatch.setattr(Encoder, "encode_all", lambda *_: pytest.fail("it was encoded again"))
    again = encode_cached(TASK, PROMPT, tokenizer, 30, EXAMPLES)
    assert list(again) == fresh
    assert again.truncated == {"examples": sum(e.cut > 0 for e in fresh), "tokens": sum(e.cut for e in fresh)}
    assert again.truncated["examples"]


def test_a_folder_that_is_only_read_serves_what_it_has(
    tokenizer_named: Callable[[str], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = (TASK, PROMPT, tokenizer_named("gpt2-like"), 40, EXAMPLES)
    fresh = list(encode_cached(*call))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(encoded_cache, "_write", lambda *_: pytest.fail("it is there"))
    assert list(encode_cached(*call)) == fresh


def test_whatever_shapes_the_tokens_has_a_file_of_its_own(
    tokenizer_named: Callable[[str], Any], folder: Path
) -> None:
    tokenizer = tokenizer_named("gpt2-like")
    other = Example("train-0", {"sentence": "another"}, label="positive")
    calls: list[tuple[Any, ...]] = [
        (TASK, PROMPT, tokenizer, 40, EXAMPLES),
        (TASK, PROMPT, tokenizer, 41, EXAMPLES),
        (TASK, PROMPT, tokenizer, 40, EXAMPLES[1:]),
        (TASK, PROMPT, tokenizer, 40, [other, *EXAMPLES[1:]]),
        (TASK, replace(PROMPT, separator="\n"), tokenizer, 40, EXAMPLES),
        (replace(TASK, labels=tuple(reversed(TASK.labels))), PROMPT, tokenizer, 40, EXAMPLES),
        (TASK, PROMPT, tokenizer_named("llama3-like"), 40, EXAMPLES),
    ]
    for count, call in enumerate(calls, start=1):
        encoder = Encoder(*call[:4])
        expected = [encoder.encode(example) for example in call[4]]
        for _ in range(2):
            assert list(encode_cached(*call)) == expected
            assert len(list(folder.iterdir())) == count
    encode_cached(TASK, replace(PROMPT, name="renamed"), tokenizer, 40, EXAMPLES)
    assert len(list(folder.iterdir())) == len(calls), "a prompt's name shapes nothing"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and then nothing", None])
def test_a_damaged_file_is_made_anew(
    damage: bytes | None, tokenizer_named: Callable[[str], Any], folder: Path
) -> None:
    call = (TASK, PROMPT, tokenizer_named("gpt2-like"), 40, EXAMPLES)
    fresh = list(encode_cached(*call))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 3  # among the tokens: the checksum tells
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes(flipped if damage is None else damage)
    assert list(encode_cached(*call)) == fresh
    assert file.read_bytes() != damage
    assert list(encode_cached(*call)) == fresh


def test_what_was_not_used_for_longest_makes_room(
    tokenizer_named: Callable[[str], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_named("gpt2-like")
    encode_cached(TASK, PROMPT, tokenizer, 40, EXAMPLES)
    (first,) = folder.iterdir()
    encode_cached(TASK, PROMPT, tokenizer, 41, EXAMPLES)
    (second,) = set(folder.iterdir()) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    encode_cached(TASK, PROMPT, tokenizer, 40, EXAMPLES)  # used again
    monkeypatch.setattr(encoded_cache, "MOST_BYTES", int(2.5 * first.stat().st_size))
    encode_cached(TASK, PROMPT, tokenizer, 42, EXAMPLES)
    assert first.exists()
    assert not second.exists()
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_said(tokenizer_named: Callable[[str], Any], folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(UserError, match="FORGETMENOT_CACHE"):
        encode_cached(TASK, PROMPT, tokenizer_named("gpt2-like"), 40, EXAMPLES)


def test_where_it_lies(
    tokenizer_named: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORGETMENOT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    encode_cached(TASK, PROMPT, tokenizer_named("gpt2-like"), 40, EXAMPLES)
    assert len(list((tmp_path / "xdg" / "forgetmenot").iterdir())) == 1


def test_without_a_home_there_is_no_cache_and_that_is_said(
    tokenizer_named: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("FORGETMENOT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.chdir(tmp_path)
    assert list(encode_cached(TASK, PROMPT, tokenizer_named("gpt2-like"), 40, EXAMPLES))
    assert not list(tmp_path.iterdir())
    assert "FORGETMENOT_CACHE" in str(encoded_cache.why_no_cache())


def test_a_home_that_cannot_be_written_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORGETMENOT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoded_cache.why_no_cache() is None
    (tmp_path / ".cache").write_text("a file in the folder's place")
    assert encoded_cache.why_no_cache()
