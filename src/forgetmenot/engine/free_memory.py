"""Freed memory, given back to the system.

glibc's malloc keeps what is freed below something that is still in use, to use it again. A stage leaves
hundreds of megabytes so, and what the next one allocates, of other sizes, came on top: over four stages the
process of a model of 135M parameters grew from 1.3 to 2.6 GB.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt(3)."""
AT_ONCE = 128 * 1024
"""Bytes from which on a piece of memory has pages of its own: what a process of glibc begins with."""
KEPT = 32 * 1024**2
"""To where glibc raises that when it frees such a piece."""


def give_back() -> None:
    """Return free memory to the system; does nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def given_back_at_once() -> Iterator[None]:
    """Return large pieces of memory to the system as they are freed; afterwards as glibc comes to do it.

    Left to itself glibc soon keeps pieces of up to 32 MiB in its heap, which stays as long as it ever was.
    Does nothing where the C library is not glibc.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is None:
        yield
        return
    option(M_MMAP_THRESHOLD, AT_ONCE)
    option(M_TRIM_THRESHOLD, AT_ONCE)
    try:
        yield
    finally:
        option(M_MMAP_THRESHOLD, KEPT)
        option(M_TRIM_THRESHOLD, 2 * KEPT)
