"""The ledger's second half: each method with its paper, what differs here, its tests and what was seen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import yaml

from forgetmenot.methods import METHODS
from forgetmenot.record.results import SIGNIFICANT
from forgetmenot.report.comparison.weighted import END, LEARNED, LOST
from forgetmenot.report.wording import NONE, signed
from scripts.ledger_runs import BASELINES, Difference, Entry, Ledger

SEEN = """\
"Seen" are mean differences to `sequential` in the drop since a task was learned, in learning accuracy and
in the final mean, with the p of a test over seeds and examples, corrected by Holm over all {count} tests of
this page. These tests were not named beforehand: they are exploratory. A method without "seen" is not in a
study yet."""
WORDS = {LOST: "drop", LEARNED: "learning accuracy", END: "final mean"}


class Paper(TypedDict):
    """What papers.yaml says of a method."""

    says: str
    differs: str
    checked: list[str]


def papers() -> dict[str, Paper]:
    """Method to what its paper says, what is otherwise here, and the tests that check it."""
    found: dict[str, Paper] = yaml.safe_load(
        Path(__file__).with_name("papers.yaml").read_text(encoding="utf-8")
    )
    return found


def methods(ledgers: Sequence[Ledger], found: Mapping[tuple[int, int, str], Difference]) -> str:
    """Each method: what it keeps, its paper, what is otherwise here, what checks it, and what was seen."""
    said = papers()
    parts = [SEEN.format(count=len(found))] if found else []
    for name, method in METHODS.items():
        if name in BASELINES:
            continue
        paper = said[name]
        lines = [
            f"### `{name}`\n",
            f"- **Stores** {method.keeps}.",
            f"- **Its paper:** {paper['says']}.",
            f"- **Differs from it:** {paper['differs']}.",
            f"- **Checked by** {', '.join(f'`{test}`' for test in paper['checked'])}.",
        ]
        lines += [f"- **Seen** in {line}" for line in _seen(name, ledgers, found)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _seen(
    name: str, ledgers: Sequence[Ledger], found: Mapping[tuple[int, int, str], Difference]
) -> list[str]:
    """What came of a method in each study, a sentence each."""
    lines = []
    for i, ledger in enumerate(ledgers):
        for k, entry in enumerate(ledger.entries):
            told = [
                f"{words} {_told(one)}"
                for figure, words in WORDS.items()
                if (one := found.get((i, k, figure))) is not None
            ]
            if entry.name == name and told:
                lines.append(f"`{ledger.name}`, {title(entry, ledger.stated)}: {'; '.join(told)}.")
    return lines


def _told(one: Difference) -> str:
    """A difference with its interval, and whether it is sure."""
    judged = one.contrast
    sure = one.p_holm is not None and one.p_holm < SIGNIFICANT
    words = f"{signed(judged.difference)} ({between(judged.interval)})"
    return f"**{words}**" if sure else f"{words}, not sure"


def between(interval: tuple[float, float] | None) -> str:
    """An interval in words."""
    return NONE if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"


def title(entry: Entry, seeds: int) -> str:
    """A method with its options and what its adapter does at each stage."""
    adapter = entry.config.adapter
    words = f"`{entry.name}`" + entry.title.removeprefix(entry.name)
    if adapter.per_stage != "continue":
        words += f", {adapter.per_stage} {'prompt' if adapter.kind == 'prompt' else 'adapter'} a stage"
    return words + (f" ({len(entry.runs)} of {seeds} seeds)" if len(entry.runs) < seeds else "")
