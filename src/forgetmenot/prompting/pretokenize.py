"""Places where a text may be cut so that its tokens are those of its parts."""

import json
import re
from collections.abc import Iterator
from typing import Any

_CUT = re.compile(r"(?<=\S\n)(?=[A-Za-z])")  # one newline: of several, GPT-2 parts the last from the others
_WORD_ENDS = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
_LONG = 100_000  # letters; the tokens of a longer part take a hundred times its memory while they are made
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN_SPLITS = {"|".join((_CONTRACTIONS, _WORDS, numbers, _REST)) for numbers in (r"\p{N}", r"\p{N}{1,3}")}
"""How Qwen 2 and Llama 3 split; GPT-2's rule is part of `ByteLevel`."""


def pieces(text: str) -> list[str]:
    """Cut a text between a line's end and a letter; prompts are full of such places, and of equal pieces.

    What is very long is cut between words as well, each some distance behind the last.
    """
    return [part for piece in _CUT.split(text) for part in _parts(piece)]


def _parts(piece: str) -> Iterator[str]:
    begin = 0
    while len(piece) - begin > _LONG and (found := _WORD_ENDS.search(piece, begin + _LONG)):
        yield piece[begin : found.start()]
        begin = found.start()
    yield piece[begin:] if begin else piece


def may_be_cut(tokenizer: str) -> bool:
    """Whether a Rust tokenizer, given as its JSON, gives a text the tokens of its `pieces` in turn.

    It does if it splits text by a rule none of whose matches holds a line's end and the letter behind it, and
    looks for tokens within the parts alone: byte-level BPE as in GPT-2, Qwen, Llama 3 and SmolLM.
    """
    parts = json.loads(tokenizer)
    splitter = parts["pre_tokenizer"] or {}
    steps = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
    return (
        parts["normalizer"] is None
        and parts["model"].get("type") == "BPE"
        and not parts["model"].get("dropout")
        and any(_splits(step) for step in steps)
        and all(_splits(step) or _keeps(step) for step in steps)
        and not any(
            "\n" in one["content"]
            or _WORD_ENDS.search(one["content"])
            or one["lstrip"]
            or one["rstrip"]
            or one["single_word"]
            for one in parts["added_tokens"]
        )
    )


def _splits(step: dict[str, Any]) -> bool:
    """Whether a step parts a newline from a letter, whatever stands around them."""
    if step.get("type") == "Split":
        return step["pattern"].get("Regex") in _KNOWN_SPLITS and step["behavior"] == "Isolated"
    return step.get("type") == "ByteLevel" and step["use_regex"] and not step["add_prefix_space"]


def _keeps(step: dict[str, Any]) -> bool:
    """Whether a step works within the parts that it is given, or parts digits from the rest."""
    if step.get("type") == "ByteLevel":
        return not step["add_prefix_space"]
    return step.get("type") == "Digits"
