"""The one exception that stands for a mistake of the person rather than of the program."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A wrong input: one sentence that says what is wrong, where (key, file, row) and what to do.

    The command line prints the sentence alone and ends with status 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the tail of an error sentence: the closest known name, and all of them.

    >>> nearest("sst", ["sst2", "cola"])
    "Did you mean 'sst2'? Known: cola, sst2."
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
