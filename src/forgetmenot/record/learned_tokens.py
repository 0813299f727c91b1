"""The answer tokens that a stage has learned from: new ones and rehearsed ones, and when they came."""

from pathlib import Path

from forgetmenot.record.layout import TRAINING
from forgetmenot.record.result_schema import LearnedTokens
from forgetmenot.record.seal import parse, read_checked

PHASES = 4


def learned_tokens(folder: Path) -> LearnedTokens | None:
    """Count over a stage's training log; None where it has no steps, or is older than the count.

    Args:
        folder: The stage's.
    """
    path = folder / TRAINING
    steps = [parse(path, line, dict) for line in (read_checked(path) or b"").splitlines()]
    if not steps or "rehearsed" not in steps[0]:
        return None
    phases = [[0, 0] for _ in range(PHASES)]
    for k, step in enumerate(steps):
        phase = phases[PHASES * k // len(steps)]
        phase[0] += step["tokens"] - step["rehearsed"]
        phase[1] += step["rehearsed"]
    new, rehearsed = map(sum, zip(*phases, strict=True))
    return {"new": new, "rehearsed": rehearsed, "phases": phases}
