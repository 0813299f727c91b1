"""A prompt: a template into which an example's fields are written."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined
from jinja2.exceptions import SecurityError, UndefinedError

from forgetmenot.errors import UserError, nearest
from forgetmenot.prompting.demonstrations import Demonstrations
from forgetmenot.prompting.sandbox import FAILURES, LimitedSandbox, why_it_fails


class _NullError(UndefinedError):
    """A template writes a value that is null."""


class _Null(StrictUndefined):
    """A value that is null: false, none, and replaced by `default`, but never written as "None"."""

    __slots__ = ()
    __hash__ = Undefined.__hash__  # type: ignore[assignment]

    def __init__(self, field: str) -> None:
        super().__init__(hint=f"the field {field!r} is null", name=field, exc=_NullError)

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return other is None or isinstance(other, _Null)

    def __repr__(self) -> str:  # in a list that is written
        return str(self)


def _without_null(value: Any, field: str) -> Any:
    """A field with its nulls replaced, however deep they lie."""
    if value is None:
        return _Null(field)
    if isinstance(value, Mapping):
        return {key: _without_null(one, f"{field}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_without_null(one, field) for one in value]
    return value


def _written(value: Any) -> Any:
    """What a template writes of a value: true and false as people type them."""
    if value is None:
        raise _NullError("a value is null")
    return str(value).lower() if isinstance(value, bool) else value


def _sandbox() -> LimitedSandbox:
    """Jinja without a way out, and without chance: the same example always gives the same text."""
    sandbox = LimitedSandbox(undefined=StrictUndefined, finalize=_written)
    sandbox.tests["none"] = lambda value: value is None or isinstance(value, _Null)
    sandbox.tests["defined"] = lambda value: isinstance(value, _Null) or not isinstance(value, Undefined)
    sandbox.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": _json_null}
    del sandbox.filters["random"]
    return sandbox


def _json_null(value: Any) -> None:
    if not isinstance(value, _Null):
        raise TypeError(f"{value!r} cannot be written as JSON")


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
        eos: Whether a free answer is learned with EOS, or a turn's end, behind it; without, a model may go on
            behind what it learned.
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
    eos: bool = True
    demonstrations: Demonstrations | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Refuse a template that is no Jinja before any example is read.

        Raises:
            UserError: The template has a syntax error, and the sentence names its line; or it is too deep.
        """
        try:
            _compiled(self.template)
        except TemplateSyntaxError as error:
            raise UserError(
                f"prompt {self.name!r}: the template's line {error.lineno} is not valid Jinja: "
                f"{str(error.message).rstrip('.')}."
            ) from error
        except FAILURES as error:
            raise UserError(f"prompt {self.name!r}: the template {why_it_fails(error)}.") from error

    @cached_property
    def fields(self) -> frozenset[str]:
        """The example's fields that the template names."""
        return _SANDBOX.names(self.template)

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of all that shapes the text; the variant's name does not."""
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        content["choices"] = dict(self.choices)
        # younger than the hashes of earlier runs
        for name in ("keep", "cut_answer", "eos", "demonstrations"):
            if content[name] == getattr(type(self), name):
                del content[name]
        if self.demonstrations is not None:
            content["demonstrations"] = self.demonstrations.hash
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def render(self, fields: Mapping[str, Any]) -> str:
        """Write an example's fields into the template.

        Raises:
            UserError: The template names a field that is missing, writes one that is null, reaches out of the
                sandbox, does more than a prompt can need, or fails.
        """
        try:
            return _compiled(self.template).render(
                {k: v if type(v) is str else _without_null(v, k) for k, v in fields.items()}
            )
        except _NullError as error:
            raise UserError(
                f"prompt {self.name!r}: {error.message}, and the template writes it. Fill it in the data, or "
                "write into the template what stands for it, as in {{ field | default('') }}."
            ) from error
        except SecurityError as error:
            raise UserError(
                f"prompt {self.name!r}: the template reaches out of its sandbox: {error} "
                "A template may only read the example's fields."
            ) from error
        except UndefinedError as error:
            if missing := re.match(r"'(\w+)' is undefined", str(error.message)):
                raise UserError(
                    f"the template of prompt {self.name!r} names the field {missing[1]!r}, which is not "
                    f"there. {nearest(missing[1], fields)}"
                ) from error
            raise UserError(
                f"prompt {self.name!r}: {error.message}. The example has: {', '.join(sorted(fields))}."
            ) from error
        except FAILURES as error:
            raise UserError(f"prompt {self.name!r}: the template {why_it_fails(error)}.") from error
