"""The exception for a user's mistake, as opposed to a program's, and the sentences that explain it."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError

# pydantic's words for what is wrong, and those of a reader of YAML.
WORDS = {
    "tuple": "list",
    "a valid dictionary": "a map of keys to values",
    "a valid integer": "a whole number",
    ", unable to parse string as an integer": "",
    "a valid number": "a number",
    ", unable to parse string as a number": "",
}


class UserError(Exception):
    """A wrong input: one sentence that says what is wrong, where (key, file, row) and what to do.

    The command line prints the sentence alone and ends with status 2.
    """


class PeerLostError(Exception):
    """Another process of the same run has ended, and said why itself."""


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
    path = [where] if where else []
    section: type[BaseModel] | None = model
    for part in first["loc"]:
        if section is None:
            break  # what follows names a member of a union, or a place inside a value
        path.append(str(part))
        field = section.model_fields.get(str(part))
        known = section.model_fields
        annotation = field.annotation if field else None
        section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such key. {nearest(path[-1], known)}"
    if first["type"] == "model_type":
        return f"{key}: {first['input']!r} is given where keys with their values belong."
    here = first["loc"][: len(path) - bool(where)]
    said = [one["msg"] for one in error.errors() if one["loc"][: len(here)] == here]  # one by union member
    others = [wrong.removeprefix("Input should be ") for wrong in said[1:]]
    wrong = ", or ".join(dict.fromkeys([said[0].removeprefix("Value error, ").rstrip("."), *others]))
    for theirs, ours in WORDS.items():
        wrong = wrong.replace(theirs, ours)
    return f"{key}: {wrong[0].lower()}{wrong[1:]} (given: {first['input']!r})."
