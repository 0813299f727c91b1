"""A prompt: a template into which an example's fields are written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forgetmenot.errors import UserError
from forgetmenot.prompting.demonstrations import Demonstrations


def _sandbox() -> ImmutableSandboxedEnvironment:
    """Jinja without a way out, and without chance: the same example always gives the same text."""
    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    del sandbox.globals["lipsum"], sandbox.filters["random"]
    return sandbox


_SANDBOX = _sandbox()


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    return _SANDBOX.from_string(template)


@dataclass(frozen=True)
class Prompt:
    r"""How an example becomes text: a template, and the words that stand for labels.

    Attributes:
        name: The variant's name, as "default".
        template: Jinja over the example's fields, rendered in a sandbox. As everywhere in Jinja, one
            newline at its very end is dropped.
        choices: Label to words, for a task of kind `choice`; empty for others.
        separator: Stands between prompt and answer: a blank, or nothing in chat.
        chat: Whether the rendered text is a user's turn in the model's own chat template.
        system: The system turn before it; chat only.
        truncate: The fields that may be cut when a prompt is too long; None for all that the template
            names.
        keep: Which part of a field that is cut stays: its `start` or its `end`.
        cut_answer: Whether a training answer may be cut too, at its end, where a third of `max_length` and
            what the prompt leaves free do not hold it. Else it is an error that names the row.
        end: Written after each candidate, as "\n", where the tokens of one begin another's.
        demonstrations: The choice of the solved examples before the one to answer; None for none.
    """

    name: str
    template: str
    choices: Mapping[str, str] = field(default_factory=dict, hash=False)
    separator: str = " "
    chat: bool = False
    system: str | None = None
    truncate: tuple[str, ...] | None = None
    end: str = ""
    keep: Literal["start", "end"] = "start"
    cut_answer: bool = False
    demonstrations: Demonstrations | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Refuse a template that is no Jinja before any example is read.

        Raises:
            UserError: The template has a syntax error; the sentence names its line.
        """
        try:
            _compiled(self.template)
        except TemplateSyntaxError as error:
            raise UserError(
                f"prompt {self.name!r}: the template's line {error.lineno} is not valid Jinja: "
                f"{str(error.message).rstrip('.')}."
            ) from error

    @cached_property
    def fields(self) -> frozenset[str]:
        """The example's fields that the template names."""
        names = meta.find_undeclared_variables(_SANDBOX.parse(self.template))
        return frozenset(names - _SANDBOX.globals.keys())

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of all that shapes the text; the variant's name does not."""
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        content["choices"] = dict(self.choices)
        for name in ("keep", "cut_answer", "demonstrations"):  # younger than the hashes of earlier runs
            if content[name] == getattr(type(self), name):
                del content[name]
        if self.demonstrations is not None:
            content["demonstrations"] = self.demonstrations.hash
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def render(self, fields: Mapping[str, Any]) -> str:
        """Write an example's fields into the template.

        Raises:
            UserError: The template names a field that is missing, reaches out of the sandbox, or fails.
        """
        try:
            return _compiled(self.template).render(fields)
        except SecurityError as error:
            raise UserError(
                f"prompt {self.name!r}: the template reaches out of its sandbox: {error} "
                "A template may only read the example's fields."
            ) from error
        except UndefinedError as error:
            raise UserError(
                f"prompt {self.name!r}: {error.message}. The example has: {', '.join(sorted(fields))}."
            ) from error
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"prompt {self.name!r}: the template cannot be rendered: {str(error).rstrip('.')}."
            ) from error
