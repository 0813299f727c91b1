"""Receipts in prompts: where any prompt shows one, and how an interpreter's answer is parsed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.tasks.yaml_file import read_yaml

LABEL, CONFIDENCE, SMALL_MODEL, SOURCE = (
    "receipt_label",
    "receipt_confidence",
    "receipt_model",
    "receipt_source",
)
"""The fields of an example that has a receipt: a label's name, a text of three decimals, and two texts."""


_AROUND = " \t\"'*`.“”‘’"  # what may stand around an answer


@cache
def _parts() -> dict[str, str]:
    """The texts of receipts.yaml: introduction, prediction, confidence and interpreter, each a template."""
    return read_yaml(Path(str(files("forgetmenot.prompting") / "receipts.yaml")))


def with_receipt(prompt: Prompt, *, confidence: bool = True, interpret: bool = False) -> Prompt:
    """The prompt with a receipt between the input and the line that asks for the answer.

    The receipt's label is written in the prompt's own words for it. A prompt's last line asks for the answer
    and stays last, except in a chat whose last line is the input itself. The receipt is never cut.

    Args:
        prompt: Of a task of kind `choice`, of any variant.
        confidence: Whether the confidence is shown.
        interpret: Ask for the interpreter's answer, which `read_interpretation` reads, in place of the plain
            one; for models that write text.
    """
    parts = _parts()
    body, cue = _parted(prompt, interpret)
    lines = [parts["introduction"] + "\n", body, parts["prediction"]]
    if confidence:
        lines.append(parts["confidence"])
    lines.append(parts["interpreter"] if interpret else cue)
    words = json.dumps(dict(prompt.choices), ensure_ascii=False)
    template = f"{{% set receipt_words = {words} %}}" + "\n".join(line for line in lines if line)
    truncate = tuple(sorted(prompt.fields)) if prompt.truncate is None else prompt.truncate
    return replace(prompt, template=template, truncate=truncate)


def _parted(prompt: Prompt, interpret: bool) -> tuple[str, str]:
    """The input and the cue of a template: what comes before its last line, and that line."""
    whole = prompt.template.removesuffix("\n")
    body, _, cue = whole.rpartition("\n")
    try:
        Prompt("", body)
    except UserError:  # an `if` that reaches into the last line: the receipt goes before all of it
        body, cue = "", whole
    if (prompt.chat or interpret) and Prompt("", cue).fields:  # it holds the input itself
        return whole, ""
    return body, cue


@dataclass(frozen=True)
class Interpretation:
    """What a model that was asked to interpret has answered.

    Attributes:
        label: Its final prediction; None where there is none, or none that is one of the choices.
        influence: How far it says the receipt swayed it, from 0 to 1; None where it does not say so.
        features: The word or phrase that it names as decisive; None where it names none.
    """

    label: str | None
    influence: float | None
    features: str | None


def read_interpretation(text: str, choices: Mapping[str, str]) -> Interpretation:
    """Read an answer in the format of the interpreter; each part by itself, case and punctuation aside.

    Args:
        text: What the model wrote.
        choices: Label to words, the prompt's.
    """
    influence = _after("influence degree", text)
    number = re.match(r"[01](\.\d+)?(?![\d.]*\d)", influence or "")
    degree = float(number[0]) if number else None
    final = (_after("final prediction", text) or "").casefold()
    labels = [
        label
        for label, words in sorted(choices.items(), key=lambda pair: -len(pair[1]))  # "not same" before "not"
        if re.match(rf"{re.escape(words.casefold().strip(_AROUND))}(?!\w)", final)
    ]
    return Interpretation(
        label=labels[0] if labels else None,
        influence=degree if degree is not None and degree <= 1 else None,
        features=_after("critical features", text) or None,
    )


def _after(title: str, text: str) -> str | None:
    """The text after a title on its line."""
    found = re.search(rf"{title}\W*?:(.*)", text, flags=re.IGNORECASE)
    return found[1].strip(_AROUND) if found else None
