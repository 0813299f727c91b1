"""Rules that extract an answer from generated text, applied in turn to answer and gold text alike."""

import re
from collections.abc import Callable, Sequence
from types import MappingProxyType

# How TRACE's reasoning data leads from a rationale to its answer, in the data's three wordings.
_ANSWER = re.compile(r"(?:Answer|回答)\s*[:：]|Therefore, the summary of the meeting transcripts is\s*:")
_LITERAL = re.compile(r"<(?:STR|NUM|CHAR)_LIT:(.*?)>", re.DOTALL)
_PLACEHOLDERS = {"<NUM_LIT>": "0", "<STR_LIT>": "", "<CHAR_LIT>": ""}


def _first_character(text: str) -> str:
    return text.strip()[:1]


def _after_answer(text: str) -> str:
    """What follows the first mark of an answer; all of the text where there is none."""
    mark = _ANSWER.search(text)
    return text[mark.end() :] if mark else text


def _before_reasoning(text: str) -> str:
    return text.split("Reasoning:")[0]


def _py150_literals(text: str) -> str:
    """TRACE's reading of Py150: a literal's placeholder becomes 0, nothing, or what it holds."""
    for placeholder, value in _PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return _LITERAL.sub(r"\1", text)


RULES: MappingProxyType[str, Callable[[str], str]] = MappingProxyType(
    {
        "strip": str.strip,
        "first-character": _first_character,
        "after-answer": _after_answer,
        "before-reasoning": _before_reasoning,
        "py150-literals": _py150_literals,
    }
)


def extracted(text: str, rules: Sequence[str]) -> str:
    """Apply rules in turn."""
    for rule in rules:
        text = RULES[rule](text)
    return text
