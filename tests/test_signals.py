"""What a signal does: at once, at the next safe place, or once more where it was swallowed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from forgetmenot import signals

ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    with signals.listening():
        yield


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_it_ends_what_is_under_way_at_once(number: int, status: int) -> None:
    with pytest.raises(signals.Interrupted) as ended:
        send(number)
    assert ended.value.status == status


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_it_waits_for_a_safe_place(number: int, status: int) -> None:
    with signals.waiting():
        send(number)
        assert signals.asked_to_stop() == number
        with pytest.raises(signals.Interrupted, match="half done") as ended:
            signals.check("half done")
    assert ended.value.status == status


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_it_at_once(second: int) -> None:
    with signals.waiting():
        send(signal.SIGINT)
        with pytest.raises(signals.Interrupted):
            send(second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_was_swallowed_is_not_forgotten(number: int) -> None:
    """As a library does that catches everything around an import."""
    with suppress(BaseException):
        send(number)
    with pytest.raises(signals.Interrupted), signals.waiting():
        pytest.fail("it goes on")


def test_a_wish_to_save_is_heard_once_and_ends_nothing() -> None:
    send(signal.SIGUSR1)
    assert signals.asked_to_save()
    assert not signals.asked_to_save()
    signals.check()


def test_what_was_there_before_comes_back() -> None:
    with signals.listening(), pytest.raises(signals.Interrupted):
        send(signal.SIGTERM)
    with pytest.raises(signals.Interrupted):
        signals.check()  # the outer one still knows


def test_after_the_end_nothing_is_asked() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with signals.listening(), pytest.raises(signals.Interrupted):
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signals.asked_to_stop() is None
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, before)


def test_what_the_parent_has_turned_off_stays_off() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.listening():
            send(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_ctrl_c_is_off_an_inner_listener_forgets_nothing() -> None:
    """As in a background job of a shell script: what an import swallowed is still asked outside."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.listening(), suppress(signals.Interrupted):
            send(signal.SIGTERM)
        assert signals.asked_to_stop() == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_listens_to_nothing() -> None:
    found = []

    def work() -> None:
        with signals.listening():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


IMPORTING = """
import os, runpy, sys, types

class Importing(types.ModuleType):
    def __getattr__(self, name):
        os.kill(os.getpid(), {number})
        return lambda: print("goes on")

sys.modules["forgetmenot.cli"] = Importing("forgetmenot.cli")
runpy.run_module("forgetmenot", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "status", "what"), [(*ENDS[0], "interrupted"), (*ENDS[1], "terminated")])
def test_one_sentence_while_the_program_is_imported(number: int, status: int, what: str) -> None:
    program = IMPORTING.format(number=int(number))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert ended.stderr == f"forgetmenot: {what}. Begin again with the same command.\n"
    assert ended.stdout == ""


def test_a_wish_to_save_ends_no_start() -> None:
    program = IMPORTING.format(number=int(signal.SIGUSR1))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "goes on\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGUSR1, 0)])
def test_a_signal_at_the_very_end_says_nothing_more(number: int, status: int) -> None:
    """As the second of two does, which comes when the first one's sentence is written."""
    program = IMPORTING.format(number=0) + f"os.kill(os.getpid(), {int(number)})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (status, "")
