"""What a study states before its runs: its claims, and the pilot that says whether it is worth its hours."""

from typing import Annotated

from pydantic import Field

from forgetmenot.report.comparison.claims import MOST, Claim
from forgetmenot.settings import Settings


class Pilot(Settings):
    """Runs of `sequential` and `joint` on the `select` split, before all others."""

    seeds: Annotated[list[int], Field(min_length=1)]
    """Their training seeds; none of them may be one of the study's own."""


class Protocol(Settings):
    """What is fixed before the first run: it cannot be changed once a run of the study has finished."""

    claims: Annotated[list[Claim], Field(max_length=MOST)] = Field(default=[])
    """At most five claims, corrected together; all else that the study finds is exploratory."""
    pilot: Pilot | None = None
    """The pilot; null is none. The study ends before its first run unless `joint` is surely above always
    giving the commonest answer and surely above `sequential`: where nothing is learned or lost, methods
    cannot be told apart."""
