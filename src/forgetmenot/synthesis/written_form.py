"""The written form of an input: the text that a model reads and writes for the fields of an example.

An input of one field is that field's text. SELF-GUIDE's inputs are one text each; for several fields the form
is our own: a line for each field that begins with its name, `premise: …`, in the order of the template.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt
from forgetmenot.tasks import Example


def input_fields(prompt: Prompt) -> tuple[str, ...]:
    """The fields of an input in the order in which a template names them first."""
    return tuple(sorted(prompt.fields, key=lambda name: _place(prompt.template, name)))


def write_input(example: Example, fields: Sequence[str]) -> str:
    """An example's fields as one text.

    Raises:
        UserError: A field is missing, or is no text.
    """
    for name in fields:
        if not isinstance(example.fields.get(name), str):
            raise UserError(
                f"the demonstration {example.id!r} has {example.fields.get(name)!r} in the field {name!r}; "
                "inputs are written of text fields alone: take a prompt that names no other."
            )
    if len(fields) == 1:
        return str(example.fields[fields[0]])
    return "\n".join(f"{name}: {example.fields[name]}" for name in fields)


def read_input(text: str, fields: Sequence[str]) -> Mapping[str, Any] | None:
    """The fields that a written input holds; None where one of several is missing, empty or out of order."""
    if len(fields) == 1:
        return {fields[0]: text.strip()}
    names = "".join(rf"^[ \t]*{re.escape(name)}[ \t]*:(.*?)" for name in fields)
    found = re.fullmatch(rf"\s*{names}", text, re.DOTALL | re.MULTILINE)
    values = [value.strip() for value in found.groups()] if found else []
    return dict(zip(fields, values, strict=True)) if values and all(values) else None


def _place(template: str, name: str) -> int:
    found = re.search(rf"\b{re.escape(name)}\b", template)
    return found.start() if found else len(template)
