"""Faults of the machine rather than of the program or its user: a full disk, too little memory or threads.

Libraries report them by exceptions of many kinds; some put the system's words alone into a message.
"""

import errno
from collections.abc import Iterator
from typing import Literal

Fault = Literal["disk", "memory", "threads"]

NUMBERS: dict[int, Fault] = {
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
    errno.EFBIG: "disk",
    errno.ENOMEM: "memory",
    errno.EAGAIN: "threads",
    errno.EMFILE: "threads",
    errno.ENFILE: "threads",
}
WORDS: dict[str, Fault] = {
    "No space left on device": "disk",
    "Disk quota exceeded": "disk",
    "File too large": "disk",
    "(os error 28)": "disk",
    "(os error 27)": "disk",
    "(os error 122)": "disk",
    "Cannot allocate memory": "memory",
    "(os error 12)": "memory",
    "can't allocate memory": "memory",  # torch's allocator on a CPU
    "not enough memory: you tried to allocate": "memory",
    "bad_alloc": "memory",
    "out of memory": "memory",
    "can't start new thread": "threads",
    "Resource temporarily unavailable": "threads",
}
SENTENCES: dict[Fault, str] = {
    "disk": "The disk is full",
    "memory": "The memory is full",
    "threads": "The system gives this process no further thread, process or file",
}


WAYS_OUT: dict[Fault, str] = {
    "disk": "make room, there or where a cache or temporary files lie",
    "memory": "close other programs, or begin anew with a smaller training.max_length, with "
    "training.activation_checkpointing: true, or with a smaller model",
    "threads": "raise its limits (ulimit -u, ulimit -n), or set fewer threads (OMP_NUM_THREADS)",
}
"""What a user can do."""


def fault(error: BaseException) -> Fault | None:
    """What the machine lacked, if that is why an exception was raised; None for every other reason."""
    for one in _chain(error):
        if isinstance(one, MemoryError) or type(one).__name__ == "OutOfMemoryError":
            return "memory"
        if isinstance(one, OSError) and one.errno in NUMBERS:
            return NUMBERS[one.errno]
        said = str(one)
        found = next((kind for words, kind in WORDS.items() if words in said), None)
        # Only of what libraries raise: a task's own text in some other message may hold these words.
        if found is not None and isinstance(one, (OSError, RuntimeError)) | _foreign(one):
            return found
    return None


def in_words(error: BaseException) -> str | None:
    """The beginning of a sentence on it, with the file where one is known; None for every other reason."""
    found = fault(error)
    if found is None:
        return None
    files = [one.filename for one in _chain(error) if isinstance(one, OSError) and one.filename]
    return SENTENCES[found] + (f" ({files[0]})" if files and found == "disk" else "")


def way_out(error: BaseException) -> str | None:
    """The same, and what a user can do about it."""
    found = fault(error)
    return None if found is None else f"{in_words(error)}: {WAYS_OUT[found]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _foreign(error: BaseException) -> bool:
    """Whether it is of a library in another language, which has no `OSError` to raise."""
    return type(error).__name__ in ("SafetensorError", "ArrowException", "ArrowInvalid", "PanicException")
