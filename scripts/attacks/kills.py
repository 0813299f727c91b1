"""Killed by SIGKILL at each change that a run makes on the disk, then the same command again."""

import signal
from collections.abc import Iterator, Sequence
from functools import partial

from scripts.attacks.child import forked
from scripts.attacks.ground import MOMENTS, Case, Ground
from scripts.attacks.injection import die_at
from scripts.attacks.jobs import NUMBERS, SETTINGS, run_command
from scripts.attacks.outcome import Files, Outcome, committed, hashes

ATTACK = "kills"


def cases(ground: Ground, methods: Sequence[str] | None = None) -> Iterator[list[Case]]:
    """A case for each moment of each setting's run; the settings of some methods alone where they are named.

    Args:
        ground: Where to play.
        methods: Their names; None for all.
    """
    for setting in SETTINGS:
        if methods is None or setting.split(",")[0] in methods:
            expected, moments = ground.run(setting)
            yield [
                Case(ATTACK, setting, str(n), len(moments), partial(kill, ground, setting, n, expected))
                for n in range(1, len(moments) + 1)
            ]


def kill(ground: Ground, setting: str, number: int, expected: Files) -> Outcome:
    """Let a run die at a moment, and run it to its end."""
    now, outcome = ground.clean(), Outcome()
    run, log = now / "run", now / MOMENTS
    end = forked(run_command(setting, run), lambda: die_at(number, run, log))
    died = f"killed {log.read_text(encoding='utf-8').splitlines()[-1]}"
    outcome.ended(end, [-signal.SIGKILL], died)
    before = committed(run)
    end = forked(run_command(setting, run))
    outcome.ended(end, [0], f"resumed, {died}")
    outcome.kept(before, committed(run), f"resumed, {died}")
    if end.status == 0:
        outcome.numbers(expected, hashes(now, NUMBERS), f"resumed, {died}", resumed=True)
        outcome.swept(run, f"resumed, {died}")
    return outcome
