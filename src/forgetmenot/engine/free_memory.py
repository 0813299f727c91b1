"""Freed memory, given back to the system.

glibc's malloc keeps what is freed below something that is still in use, to use it again. A stage leaves
hundreds of megabytes so, and what the next one allocates, of other sizes, came on top: over four stages the
process of a model of 135M parameters grew from 1.3 to 2.6 GB.
"""

import ctypes


def give_back() -> None:
    """Return free memory to the system; does nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
