"""Signals at random moments of a real process, start-up included, then the same command again."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from scripts.attacks.child import HUNG, LIMIT, End, forked
from scripts.attacks.ground import Case, Ground
from scripts.attacks.jobs import NUMBERS, run_command
from scripts.attacks.outcome import Outcome, committed, hashes

ATTACK, SETTING = "signals", "sequential"
TERM, INT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
RIGHT = {TERM: (143, -TERM), INT: (130, -INT), HUP: (129, -HUP), USR1: (0,)}
"""The exit statuses after a signal; below 0 where it came before the program could listen."""

SEQUENCES = [(TERM,), (INT,), (HUP,), (USR1,), (TERM, TERM), (INT, INT), (INT, TERM), (USR1, TERM)]
CASES = 40  # of each sequence
GAP = 0.5  # seconds at most between two signals


def cases(ground: Ground) -> Iterator[list[Case]]:
    """Cases at seeded moments, for each sequence of signals."""
    took = float(ground.kept("time", partial(_time, ground)).joinpath("seconds.txt").read_text())
    for numbers in SEQUENCES:
        setting = ", then ".join(number.name for number in numbers)
        yield [
            Case(ATTACK, setting, str(k), CASES, partial(send, ground, numbers, *_moments(setting, k, took)))
            for k in range(CASES)
        ]


def send(ground: Ground, numbers: tuple[signal.Signals, ...], delay: float, gap: float) -> Outcome:
    """Send signals to a run, and run it to its end."""
    expected, _ = ground.run(SETTING)
    now, outcome = ground.clean(), Outcome()
    when = f"after {delay:.2f} s" + (f" and {gap:.2f} s" if len(numbers) > 1 else "")
    end = _signalled(now, [(delay, numbers[0]), *((gap, number) for number in numbers[1:])])
    right = {status for number in numbers for status in RIGHT[number]}
    if (now / "run" / "report.html").exists():  # it was through
        right.add(0)
    outcome.ended(end, right, when)
    if (lines := len(end.said.splitlines())) > 1:
        outcome.odd.append(f"{when}: says {lines} lines")
    if end.status == 0:
        outcome.numbers(expected, hashes(now, NUMBERS), when)
    before = committed(now / "run")
    end = forked(run_command(SETTING, now / "run"))
    outcome.ended(end, [0], f"resumed, {when}")
    outcome.kept(before, committed(now / "run"), f"resumed, {when}")
    if end.status == 0:
        outcome.numbers(expected, hashes(now, NUMBERS), f"resumed, {when}", resumed=True)
        outcome.swept(now / "run", f"resumed, {when}")
    return outcome


def _signalled(now: Path, schedule: list[tuple[float, signal.Signals]]) -> End:
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetmenot", *run_command(SETTING, now / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heard,
    )
    for seconds, number in schedule:
        time.sleep(seconds)
        process.send_signal(number)  # which does nothing once it has ended
    try:
        _, said = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return End(HUNG, "")
    return End(process.returncode, said)


def _heard() -> None:
    """Undo what `nohup` and a shell's `&` turn off."""
    for number in RIGHT:
        signal.signal(number, signal.SIG_DFL)


def _time(ground: Ground, now: Path) -> None:
    """Write down the seconds that a real process takes."""
    began = time.monotonic()
    _signalled(now, [])
    (now / "seconds.txt").write_text(f"{time.monotonic() - began}")


def _moments(setting: str, number: int, took: float) -> tuple[float, float]:
    draw = random.Random(f"{setting} {number}")
    return draw.uniform(0, took), draw.uniform(0, GAP)
