"""Signals: a run that is told to stop does so where nothing is lost, and one that is told to save goes on.

SIGINT (Ctrl-C) and SIGTERM (Slurm, spot machines) end what is under way by an `Interrupted`: at once, or
within `waiting` at the next `check`, which comes after an optimizer step or a pack of answers. A second one
ends it at once everywhere. SIGUSR1 asks for a save alone.

An exception that a signal raises may be swallowed by whatever was running, such as an import. So what was
asked stays asked: the next `check` or `waiting` raises it again.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENDS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to end; its message says where the work stands, if it got so far.

    Attributes:
        number: The signal.
        where: The message.
        run_dir: The directory of the run that it has cut off, by which that goes on; empty if there is none.
    """

    def __init__(self, number: int, where: str = "", run_dir: str = "") -> None:
        super().__init__(where)
        self.number, self.where, self.run_dir = number, where, run_dir

    @property
    def status(self) -> int:
        """The exit status that shells give a process which this signal has ended."""
        return 128 + self.number


_stop: int | None = None
_save = False
_waits = 0


def leave_at_once() -> None:
    """Until somebody is listening, end by a signal in one sentence: nothing is under way."""

    def leave(number: int, _frame: Any) -> None:
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            what = "interrupted" if number == signal.SIGINT else "terminated"
            os.write(2, f"forgetmenot: {what}. Begin again with the same command.\n".encode())
        os._exit(128 + number)  # no exception: an import might swallow it, and there is nothing to close

    for number in (*ENDS, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave if number in ENDS else _nothing_to_save)


def end() -> None:
    """All is said: a signal that ends does so without a word, and a wish to save is too late.

    Not by handlers of Python's, which the interpreter takes away before it ends itself.
    """
    for number in (*ENDS, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number in ENDS else signal.SIG_IGN)


def _nothing_to_save(_number: int, _frame: Any) -> None:
    pass


@contextmanager
def listening() -> Iterator[None]:
    """Answer the signals from here on, if this is the main thread; no other can."""
    global _stop, _save
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGUSR1)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # what the parent has turned off, as `nohup` does, stays off
            signal.signal(number, _received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if all(before[number] is not _received for number in ENDS):  # the outermost of several
            _stop, _save = None, False


@contextmanager
def waiting() -> Iterator[None]:
    """Where a signal that ends the work waits for the next `check`."""
    global _waits
    check()
    _waits += 1
    try:
        yield
    finally:
        _waits -= 1


def asked_to_stop() -> int | None:
    """The signal that has asked for the end, if one has."""
    return _stop


def asked_to_save() -> bool:
    """Whether a save was asked for since the last time this was called."""
    global _save
    asked, _save = _save, False
    return asked


def check(where: str = "") -> None:
    """End here if a signal has asked for it.

    Raises:
        Interrupted: It has.
    """
    if _stop is not None:
        raise Interrupted(_stop, where)


def _received(number: int, _frame: Any) -> None:
    global _stop, _save
    if number == signal.SIGUSR1:
        _save = True
        return
    first, _stop = _stop is None, number
    if not (first and _waits):
        raise Interrupted(number)
