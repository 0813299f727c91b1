"""The ledger of methods: write docs/methods.md from the runs of studies, and from what papers say.

    python -m scripts.archive unpack evidence/ledger studies/ledger    # or `fmn study recipes/ledger.yaml …`
    python -m scripts.ledger studies/ledger                            # without a study: papers alone

Uses the runs that have finished: a study that is still running gives a page of its results so far. The text
under "Reading" on the page is written by hand and is kept. What papers say, what is done otherwise here and
which tests check it stands in `papers.yaml`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from forgetmenot.metrics import Contrast
from forgetmenot.metrics.spread import Spread
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.paths import path_safe
from forgetmenot.report.comparison.claims import JudgedClaim
from forgetmenot.report.comparison.learned_and_kept import LABEL as BALANCE
from forgetmenot.report.comparison.learned_and_kept import Balance, JointEnd
from forgetmenot.report.comparison.learned_and_left import LABEL, Bar
from forgetmenot.report.comparison.weighted import LOST
from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import MINUS, NONE, byte_size, listed, number, p_value, setting, signed
from scripts.ledger_chart import balance_chart, chart
from scripts.ledger_methods import between, methods, title
from scripts.ledger_runs import (
    Difference,
    Entry,
    Ledger,
    differences,
    gap_closed,
    read_study,
    times,
)

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURES = PAGE.with_suffix("")
READING = "## Reading"
NOTHING_READ = "Not written yet."
FIGURES = {
    "average_performance": "final mean",
    "backward_transfer": "change since learned",
    "learning_accuracy": "learning accuracy",
}
ABOUT = """\
# All methods compared

Written by `python -m scripts.ledger` from the runs of studies in `evidence/`, and from
`scripts/papers.yaml`. All methods of a table have the same base model, data, order, epochs and seeds; how
options and learning rates were chosen, and what was asked before the runs, says [the
protocol](protocol.md).

- **Final mean**: average performance, the mean score of all tasks after the last. **Change since learned**:
  backward transfer, the mean change of a task from its own stage to the end. **Learning accuracy**: the
  mean score of a task after its own stage. ± is half of the 95 % interval over the seeds (Student's t).
- **Saved**: how much less a task dropped than under `sequential`, with the interval over seeds and examples
  ([statistics](statistics.md)).
- **Gap closed**: (final mean − that of `sequential`) / (that of `joint` − that of `sequential`), only where
  the interval of the denominator excludes zero.
- **Time**: seconds of training and scoring, divided by those of `sequential`; the median over the seeds.
  Two runs went on at a time. **Rehearsed**: the share of the answer tokens trained on that were learned
  before. **Stored**: what the method stores in the end beside the weights. **Added**: parameters beside the
  model's.
- † marks a final mean that is not above always giving the commonest answer: whatever such a row "saved" or
  "closed" is a share of what was not learned.
"""
TABLE = (
    "method",
    *FIGURES.values(),
    "saved",
    "gap closed",
    "time",
    "rehearsed",
    "stored",
    "added",
    "past data",
)


def page(ledgers: Sequence[Ledger], reading: str) -> str:
    """The whole page as Markdown."""
    found = differences(ledgers)
    parts = [ABOUT.rstrip(), READING, reading.strip()]
    for i, ledger in enumerate(ledgers):
        parts += [f"## {ledger.name}", about(ledger)]
        for group in by_adapter(ledger):
            parts += [f"![{LABEL}]({PICTURES.name}/{_file(ledger, group)})"]
            if _balances(group):
                parts += [f"![{BALANCE}]({PICTURES.name}/{_file(ledger, group, 'balance')})"]
            saved = [found.get((i, ledger.entries.index(entry), LOST)) for entry in group]
            parts += [table(ledger, group, saved)]
        if ledger.claims:
            parts += ["### What was stated before the runs", claims_table(ledger.claims)]
    parts += ["## Method by method", methods(ledgers, found)]
    return "\n\n".join(parts) + "\n"


def pictures(ledgers: Sequence[Ledger]) -> dict[str, str]:
    """File name to what it holds: each table as two pictures (SVG)."""
    drawn = {}
    for ledger in ledgers:
        for group in by_adapter(ledger):
            drawn[_file(ledger, group)] = chart([_bar(ledger, entry) for entry in group], group[0].majority)
            if balances := _balances(group):
                drawn[_file(ledger, group, "balance")] = balance_chart(balances, _joint(group))
    return drawn


def _bar(ledger: Ledger, entry: Entry) -> Bar:
    left = entry.over_seeds("average_performance")
    return Bar(
        name=title(entry, ledger.stated).replace("`", ""),
        learned=_mean(entry, "learning_accuracy"),
        left=left.mean if left else None,
        interval=left.interval if left else None,
    )


def _balances(entries: Sequence[Entry]) -> list[Balance]:
    """What learned tasks in turn, where that are at least two methods."""
    found = []
    for entry in entries:
        learned, kept = entry.over_seeds("learning_accuracy"), entry.over_seeds("backward_transfer")
        if learned and kept:
            found.append(Balance(entry.name, learned.mean, kept.mean, learned.interval, kept.interval))
    return found if len(found) > 1 else []


def _joint(entries: Sequence[Entry]) -> JointEnd | None:
    """Where `joint` ends, among methods that learn each task at a stage of its own."""
    for entry in entries:
        if entry.name == "joint" and (end := entry.over_seeds("average_performance")):
            return JointEnd(end.mean, len(entry.tasks))
    return None


def _file(ledger: Ledger, group: Sequence[Entry], kind: str = "") -> str:
    parts = [ledger.name, path_safe(_what_learns(group[0].config.adapter)), *([kind] if kind else [])]
    return f"{'-'.join(parts)}.svg"


def about(ledger: Ledger) -> str:
    """The lines over a study's tables: what was trained on what."""
    config = ledger.entries[0].config
    training, evaluation = config.training, config.evaluation
    return (
        f"`{Path(config.model.name).name}` on {', '.join(f'`{name}`' for name in config.tasks)}: "
        f"learned from {_at_most(training.limit)}; epochs {setting(training.epochs)}, batches of "
        f"{training.batch_size}, {_rates(ledger.entries)}, texts cut to fit {training.max_length:,} tokens; "
        f"scored on {_at_most(evaluation.limit)} (`{evaluation.split}`). Seeds {_seeds(ledger)}. "
        f"Machine: {'; '.join(ledger.machines)}."
    )


def _seeds(ledger: Ledger) -> str:
    return ", ".join(map(str, sorted({seed for entry in ledger.entries for seed in entry.runs})))


def _rates(entries: Sequence[Entry]) -> str:
    rates = dict.fromkeys(setting(entry.config.training.learning_rate) for entry in entries)
    return f"learning rate{'s' if len(rates) > 1 else ''} {listed(list(rates))}"


def _at_most(limit: int | Mapping[str, int] | None) -> str:
    if limit is None:
        return "all examples"
    if isinstance(limit, int):
        return f"at most {limit:,} examples of each task"
    return ", ".join(f"{count:,} examples of {task}" for task, count in limit.items())


def by_adapter(ledger: Ledger) -> list[list[Entry]]:
    """Full fine-tuning, LoRA and soft prompts apart, the best average performance first."""
    groups: dict[str, list[Entry]] = {}
    for entry in ledger.entries:
        groups.setdefault(_what_learns(entry.config.adapter), []).append(entry)
    return [sorted(group, key=lambda e: -_mean(e, "average_performance")) for group in groups.values()]


def table(ledger: Ledger, entries: Sequence[Entry], saved: Sequence[Difference | None]) -> str:
    """One table of methods with the same kind of adapter, and the score of always the commonest answer.

    Args:
        ledger: Their study.
        entries: From the top down.
        saved: The difference of each one's drop to that of `sequential`.
    """
    rows = [list(TABLE)]
    for entry, difference in zip(entries, saved, strict=True):
        added = entry.cost["parameters_added"]
        rows.append(
            [
                title(entry, ledger.stated) + _mark(entry),
                *(_figure(entry.over_seeds(name)) for name in FIGURES),
                NONE if difference is None else _saved(difference.contrast),
                _share(gap_closed(ledger, entry)),
                _factor(times(ledger, entry)),
                _share(entry.rehearsed) if entry.rehearsed else NONE,
                _kept(list(entry.cost["memory_kept"].values())[-1]),
                f"{list(added.values())[-1]:,}",
                "yes" if entry.cost["past_data"] else "no",
            ]
        )
    majority = entries[0].majority
    if majority is not None:
        rows.append(["*majority class*", number(majority), *[""] * (len(TABLE) - 2)])
    kind = _what_learns(entries[0].config.adapter)
    return f"**{kind}**, {_rates(entries)}\n\n{markdown_table(rows)}"


def claims_table(claims: Sequence[JudgedClaim]) -> str:
    """Each claim with its sums, their intervals and what came of it."""
    rows = [["stated", "asked", "found (95 % interval)", "p (Holm)", "p of the sign-flip test", ""]]
    for claim in claims:
        flips = [one.by_sign for one in claim.conditions]
        rows.append(
            [
                claim.claim.says,
                "<br>".join(one.asks for one in claim.conditions),
                "<br>".join(
                    one.reason or f"{signed(one.total or 0.0)} ({between(one.interval)})"
                    for one in claim.conditions
                ),
                p_value(claim.p_holm).removeprefix("p = ") if claim.tested else NONE,
                "<br>".join(NONE if p is None else number(p) for p in flips),
                "**borne out**" if claim.borne_out else "not borne out" if claim.tested else "not tested",
            ]
        )
    return markdown_table(rows)


def _mark(entry: Entry) -> str:
    performance, majority = entry.over_seeds("average_performance"), entry.majority
    below = performance is not None and majority is not None and performance.mean <= majority
    return " †" if below else ""


def _mean(entry: Entry, name: str) -> float:
    found = entry.over_seeds(name)
    return found.mean if found else float("-inf")


def _what_learns(adapter: AdapterSettings) -> str:
    if adapter.kind == "full":
        return "Full fine-tuning"
    if adapter.kind == "prompt":
        return f"Soft prompts of {adapter.tokens} tokens"
    return f"LoRA, rank {adapter.rank}, α {adapter.alpha:g}"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}".replace("-", MINUS)


def _factor(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}×"


def _figure(found: Spread | None) -> str:
    return NONE if found is None else number(found.mean) + _half(found)


def _saved(difference: Contrast) -> str:
    """How much less was dropped: the drop's difference with its sign turned."""
    half = (difference.interval[1] - difference.interval[0]) / 2
    return f"{signed(0.0 - difference.difference)} ± {number(half)}"


def _half(found: Spread) -> str:
    return "" if found.interval is None else f" ± {number(found.interval[1] - found.mean)}"


def _kept(count: int) -> str:
    return byte_size(count) if count else "nothing"


def written_reading(text: str) -> str:
    """The text written by hand under "Reading" on a page."""
    _, found, rest = text.partition(f"{READING}\n")
    return rest.split("\n## ")[0].strip() if found else NOTHING_READ


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    ledgers = [ledger for folder in sys.argv[1:] if (ledger := read_study(Path(folder))).entries]
    PAGE.write_text(page(ledgers, written_reading(before)), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, picture in pictures(ledgers).items():
        (PICTURES / name).write_text(picture, encoding="utf-8")
    print(PAGE, file=sys.stderr)
