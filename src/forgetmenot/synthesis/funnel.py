"""The funnel of a synthesis: how many of what was written each step keeps, and why it drops the others."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetmenot.synthesis.filters import EMPTY, NOISE, WINDOW
from forgetmenot.tasks import Example, Kind

UNREADABLE, REPEAT, TOO_LONG = "not in the form of the fields", "written before", "too long a prompt"
NO_OUTPUT, INCONSISTENT, NO_LABEL = "no output left", "outputs differ", "names no label"
SPARE = "more than the rarest label has"
REMEDIES = {
    "inputs written": {
        EMPTY: "take a larger model",
        WINDOW: "--set input_window=false",
        NOISE: "--set noise=[]",
        UNREADABLE: "take a larger model",
        REPEAT: "raise --set temperature",
        TOO_LONG: "raise --set context_tokens",
    },
    "likeliest outputs of each": {
        EMPTY: "take a larger model",
        WINDOW: "--set output_window=false",
        NOISE: "--set noise=[]",
    },
    "inputs answered": {
        INCONSISTENT: "lower --set min_frequency",
        NO_LABEL: "take a model that was tuned to answer, since this one's answers name no label",
    },
    "classes balanced": {SPARE: "--set balance=false: a label has no row at all"},
}
"""What helps where a step dropped too much, by its reason."""


@dataclass
class Candidate:
    """An input that was written, and what became of it.

    Attributes:
        number: Its place among all.
        round: In which it was written, from 0 on.
        asked_label: The label that it was to have; it is not taken for its answer.
        text: As it was written.
        input: Without marks and blanks around it, if it passed the filters.
        outputs: What was drawn for it, each with the reason why it was dropped, or None.
        answer: The most consistent output.
        label: The label that this names.
        dropped: Why it is no row; None if it is one.
    """

    number: int
    round: int
    asked_label: str | None
    text: str
    input: str | None = None
    outputs: list[tuple[str, str | None]] = field(default_factory=list)
    answer: str | None = None
    label: str | None = None
    dropped: str | None = None


@dataclass(frozen=True)
class Step:
    """One step of a synthesis.

    Attributes:
        name: What it looks at, as "inputs written".
        unit: What it counts: inputs, outputs or rows.
        entered: How many it looked at.
        dropped: How many it dropped, by reason.
    """

    name: str
    unit: str
    entered: int
    dropped: dict[str, int]

    @property
    def left(self) -> int:
        """How many it kept."""
        return self.entered - sum(self.dropped.values())

    @property
    def reasons(self) -> str:
        """What it dropped, as "length window 64, noise list 2"; empty where it dropped nothing."""
        return ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items() if count)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "unit": self.unit,
            "entered": self.entered,
            "dropped": self.dropped,
            "left": self.left,
        }


@dataclass(frozen=True)
class Synthesis:
    """What was written.

    Attributes:
        rows: The examples that are kept, as a task's.
        funnel: What each step kept and dropped.
        candidates: Every input that was written.
    """

    rows: list[Example]
    funnel: list[Step]
    candidates: list[Candidate]

    @property
    def remedies(self) -> str:
        """What helps against what dropped most in each step, the one that left nothing first."""
        found = dict.fromkeys(
            REMEDIES[step.name][reason]
            for step in sorted(self.funnel, key=lambda step: step.left > 0 or step.entered == 0)
            for reason, count in Counter(step.dropped).most_common(1)
            if count and reason in REMEDIES[step.name]
        )
        return "; ".join(found)

    def to_json(self) -> dict[str, Any]:
        """The funnel and the labels of the rows, as plain data."""
        labels = [row.label for row in self.rows if row.label is not None]
        return {
            "funnel": [one.to_json() for one in self.funnel],
            "rows": len(self.rows),
            "labels": {label: labels.count(label) for label in dict.fromkeys(labels)},
        }


def funnel_of(candidates: Sequence[Candidate], kind: Kind) -> list[Step]:
    """Count what each step kept and dropped; a reason that dropped nothing shows its zero."""
    written = [None if one.input is not None else one.dropped for one in candidates]
    taken = [one for one in candidates if one.input is not None]
    outputs = [reason for one in taken for _, reason in one.outputs]
    answered = [None if one.dropped == SPARE else one.dropped for one in taken]
    choice = kind == "choice"
    steps = [
        _step("inputs written", "inputs", written, (EMPTY, WINDOW, NOISE, UNREADABLE, REPEAT, TOO_LONG)),
        _step("likeliest outputs of each", "outputs", outputs, (EMPTY, WINDOW, NOISE)),
        _step("inputs answered", "inputs", answered, (NO_OUTPUT, INCONSISTENT, *([NO_LABEL] * choice))),
    ]
    if choice:
        labelled = [one.dropped for one in taken if one.dropped in (None, SPARE)]
        steps.append(_step("classes balanced", "rows", labelled, (SPARE,)))
    return steps


def _step(name: str, unit: str, reasons: Iterable[str | None], known: Sequence[str]) -> Step:
    counts = Counter(reasons)
    return Step(name, unit, sum(counts.values()), {reason: counts[reason] for reason in known})
