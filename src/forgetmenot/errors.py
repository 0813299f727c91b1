"""The exception for a user's mistake, as opposed to a program's, and the sentences that explain it."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

# pydantic's words for what is wrong, and those of a reader of YAML.
WORDS = {
    "tuple": "list",
    "a valid dictionary": "a map of keys to values",
    "a valid integer": "a whole number",
    ", unable to parse string as an integer": "",
    "a valid number": "a number",
    ", unable to parse string as a number": "",
}


_USER = re.compile(r"(\w://)[^\s/@'\"]*@")
_BEHIND = re.compile(r"(\bhttps?://[^\s'\"?#]*[?#])[^\s'\"]+")
_SECRET = re.compile(r"(^|[_-])(key|token|secret|password|authorization|headers?)([_-]|$)", re.IGNORECASE)


class UserError(Exception):
    """A wrong input: one sentence that says what is wrong, where (key, file, row) and what to do.

    The command line prints the sentence alone and ends with status 2; a notebook shows it alone.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback, which tells a user nothing."""
        return [f"{type(self).__name__}: {self}"]


class PeerLostError(Exception):
    """Another process of the same run has ended, and said why itself."""


def masked(text: str) -> str:
    """A text without the user, password, query and fragment of the addresses in it, which may be secrets.

    >>> masked("at http://me:pass@host/v1?key=1 it is")
    'at http://…@host/v1?… it is'
    """
    return _BEHIND.sub(r"\1…", _USER.sub(r"\1…@", text))


def _shown(given: Any) -> str:
    """What was given, for a sentence: without secrets, and not at length."""
    text = masked(repr(_without_secrets(given)))
    return text if len(text) <= 200 else f"{text[:200]}…"


def _without_secrets(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {
            key: "…" if _SECRET.search(str(key)) and value else _without_secrets(value)
            for key, value in given.items()
        }
    return [_without_secrets(one) for one in given] if isinstance(given, list | tuple) else given


def nearest(word: str, known: Iterable[str], shown_by: str | None = None) -> str:
    """Return the tail of an error sentence: the closest known name, and all of them.

    Where they are too many for a sentence, a command shows them, and the five closest stand for all.

    Args:
        word: What was written.
        known: The names that there are.
        shown_by: The command that lists them.

    >>> nearest("sst", ["sst2", "cola"])
    "Did you mean 'sst2'? Known: cola, sst2."
    """
    names = sorted(known)
    hint = did_you_mean(word, names, 5 if shown_by else 1)
    return hint + (f"{shown_by} shows all." if shown_by else f"Known: {', '.join(names) or 'none'}.")


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """Return the question that names the closest known names, `most` of them, or nothing if none is close.

    >>> did_you_mean("sst", ["sst2", "cola"])
    "Did you mean 'sst2'? "
    """
    close = difflib.get_close_matches(word, list(known), n=most)
    return f"Did you mean {' or '.join(map(repr, close))}? " if close else ""


def validation_sentence(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """The first thing that is wrong in validated settings, as a sentence that names the key.

    Args:
        error: What pydantic found.
        model: The settings' class, to name the nearest of its keys where one is unknown.
        where: The key under which the settings themselves stand.
    """
    first = error.errors()[0]
    path, walked = [where] if where else [], 0
    section: type[BaseModel] | None = model
    members: dict[str, type[BaseModel]] = {}
    for part in first["loc"]:
        if str(part) in members:
            section, members = members[str(part)], {}
        elif section is None:
            break  # what follows names another member of a union, or a place inside a value
        else:
            path.append(str(part))
            field = section.model_fields.get(str(part))
            known = section.model_fields
            annotation = field.annotation if field else None
            section = annotation if _is_model(annotation) else None
            members = _members(annotation)
        walked += 1
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such key. {nearest(path[-1], known)}"
    if first["type"] == "model_type":
        given, fields = first["input"], section.model_fields if section else {}
        meant = [
            f"{key}.{name}: {given}" for name, field in fields.items() if given in (field.examples or ())
        ]
        hint = f"; {meant[0]} is how it is written" if meant else ""
        return f"{key}: {_shown(given)} is given where keys with their values belong{hint}."
    here = first["loc"][:walked]
    said = [one["msg"] for one in error.errors() if one["loc"][: len(here)] == here]  # one by union member
    others = [wrong.removeprefix("Input should be ") for wrong in said[1:]]
    wrong = ", or ".join(dict.fromkeys([said[0].removeprefix("Value error, ").rstrip("."), *others]))
    for theirs, ours in WORDS.items():
        wrong = wrong.replace(theirs, ours)
    secret = any(_SECRET.search(str(part)) for part in first["loc"])
    given = "…" if secret else _shown(first["input"])
    return f"{key}: {wrong[0].lower()}{wrong[1:]} (given: {given})."


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a key may hold, by what pydantic calls each: its tag or its class's name."""
    found: dict[str, type[BaseModel]] = {}
    for member in get_args(annotation):
        kind, *about = get_args(member) if get_origin(member) is Annotated else (member,)
        if _is_model(kind):
            found[kind.__name__] = kind
            found |= {one.tag: kind for one in about if isinstance(one, Tag)}
    return found
