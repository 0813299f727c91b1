"""The ledger of methods: write docs/methods.md from the runs of studies, every method on every sequence.

    fmn study recipes/methods.yaml --workers 2
    python -m scripts.ledger studies/methods-*

Uses the runs that have finished: a study that is still running gives a page of its results so far. The text
under "Reading" on the page is written by hand and is kept.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from forgetmenot.methods import METHODS
from forgetmenot.metrics import holm
from forgetmenot.metrics.spread import Spread
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.paths import path_safe
from forgetmenot.record.results import SIGNIFICANT
from forgetmenot.report.comparison.learned_and_left import LABEL, Bar
from forgetmenot.report.wording import MINUS, NONE, byte_size, listed, number, setting, signed
from scripts.ledger_chart import chart
from scripts.ledger_runs import (
    BASELINES,
    Entry,
    Ledger,
    gap_closed,
    learned_more,
    read_study,
    saved,
    times,
)
from scripts.papers import PAPER_SAYS

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURES = PAGE.with_suffix("")
READING = "## Reading"
NOTHING_READ = "Not written yet."
FIGURES = {
    "average_performance": "AP",
    "backward_transfer": "BWT",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
}
ABOUT = """\
# All methods compared

Written by `python -m scripts.ledger` from the runs of `fmn study` with `recipes/methods.yaml` and the other
`recipes/methods-*.yaml`; the first lines of each recipe have the commands. All methods of a table have the
same base model, data, epochs and seeds. An option beside a method's name was chosen on the bundled tasks'
`select` splits (`recipes/methods-select.yaml`), or is what the study varies; all other options are defaults.
`methods-glue4` also has `ewc` and `si` with the strengths chosen on its own `select`.

- In the pictures a line goes from the learning accuracy (ring) to the final AP (dot): the distance is what
  was forgotten. The thin line is the 95 % interval of AP.
- A figure is its mean over the seeds ± half of the 95 % interval of that mean (Student's t).
- **saved**: how much less a task dropped between its own stage and the end (−BWT, which takes no maximum)
  than under `sequential` with the same adapter and seed.
- **gap closed**: (AP − AP of `sequential`) / (AP of `joint` − AP of `sequential`); only where the interval of
  the denominator excludes zero.
- **time**: seconds of training and scoring, divided by those of `sequential`; the median over the seeds. It
  is approximate, since the machine had other work.
- **kept**: what the method stores in the end beside the weights. **added**: parameters beside the model's.
- `single` learns each task from the base model, so its learning accuracy is what one task alone gives.
  The task-vector methods scale and merge what was learned before it is scored: theirs is the merged model's.
- † marks an average performance that is not above always giving the commonest answer: whatever such a row
  "saved" or "closed" is a share of what was not learned.
"""
COMPARED = """\
Seen are mean differences to `sequential` with the same adapter and seeds, named by study: in the drop since a
task was learned, and in learning accuracy. Sure is what a t test over the seeds finds after Holm's correction
over all tests of this page; the scored examples are the same with every seed, so that it speaks of these
examples."""
FORGETS = {1: "forgets less", -1: "forgets more", 0: "no sure difference in forgetting"}
LEARNS = {-1: "learns less", 1: "learns more", 0: ""}
TABLE = ("method", *FIGURES.values(), "saved", "gap closed", "time", "kept", "added", "past data")


def page(ledgers: Sequence[Ledger], reading: str) -> str:
    """The whole page as Markdown."""
    parts = [ABOUT.rstrip(), READING, reading.strip()]
    for ledger in ledgers:
        parts += [f"## {ledger.name}", about(ledger)]
        for group in by_adapter(ledger):
            parts += [f"![{LABEL}]({PICTURES.name}/{_file(ledger, group)})", table(ledger, group)]
    parts += ["## What the papers say, and what we see", comparison(ledgers)]
    return "\n\n".join(parts) + "\n"


def pictures(ledgers: Sequence[Ledger]) -> dict[str, str]:
    """File name to what it holds: each table as a picture (SVG)."""
    return {
        _file(ledger, group): chart([_bar(ledger, entry) for entry in group], group[0].majority)
        for ledger in ledgers
        for group in by_adapter(ledger)
    }


def _bar(ledger: Ledger, entry: Entry) -> Bar:
    left = entry.over_seeds("average_performance")
    return Bar(
        name=_title(entry, len(ledger.seeds)).replace("`", ""),
        learned=_mean(entry, "learning_accuracy"),
        left=left.mean if left else None,
        interval=left.interval if left else None,
    )


def _file(ledger: Ledger, group: Sequence[Entry]) -> str:
    return f"{ledger.name}-{path_safe(_what_learns(group[0].config.adapter))}.svg"


def about(ledger: Ledger) -> str:
    """The lines over a study's tables: what was trained on what."""
    config = ledger.entries[0].config
    training, evaluation = config.training, config.evaluation
    return (
        f"`{Path(config.model.name).name}` on {', '.join(f'`{name}`' for name in config.tasks)}: "
        f"learned from {_at_most(training.limit)}; epochs {setting(training.epochs)}, batches of "
        f"{training.batch_size}, {_rates(ledger.entries)}, texts cut to fit {training.max_length:,} tokens; "
        f"scored on {_at_most(evaluation.limit)}. Seeds {', '.join(map(str, ledger.seeds))}. "
        f"Machine: {'; '.join(ledger.machines)}."
    )


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


def table(ledger: Ledger, entries: Sequence[Entry]) -> str:
    """One table of methods with the same kind of adapter, and the score of always the commonest answer."""
    kind = _what_learns(entries[0].config.adapter)
    lines = [f"**{kind}**, {_rates(entries)}", "", _line(TABLE), _line(["---"] * len(TABLE))]
    for entry in entries:
        added = entry.cost["parameters_added"]
        cells = [
            _title(entry, len(ledger.seeds)) + _mark(entry),
            *(_figure(entry.over_seeds(name)) for name in FIGURES),
            _difference(saved(ledger, entry)),
            _share(gap_closed(ledger, entry)),
            _factor(times(ledger, entry)),
            _kept(list(entry.cost["memory_kept"].values())[-1]),
            f"{list(added.values())[-1]:,}",
            "yes" if entry.cost["past_data"] else "no",
        ]
        lines.append(_line(cells))
    majority = entries[0].majority
    if majority is not None:
        lines.append(_line([" *majority class*", number(majority), *[""] * (len(TABLE) - 2)]))
    return "\n".join(lines)


def comparison(ledgers: Sequence[Ledger]) -> str:
    """For each method what it keeps, what its paper claims, and what came of it here."""
    lines = [_line(("method", "keeps", "paper says", "we see")), _line(["---"] * 4)]
    tests = corrected(ledgers)
    for name, method in METHODS.items():
        if name not in BASELINES:
            lines.append(_line([f"`{name}`", method.keeps, PAPER_SAYS[name], _seen(name, ledgers, tests)]))
    return "\n".join([COMPARED, "", *lines])


Found = dict[tuple[int, int, str], tuple[Spread, float | None]]


def corrected(ledgers: Sequence[Ledger]) -> Found:
    """Every difference to `sequential` on the page with its p, corrected for their number.

    Keyed by the places of the ledger and of its entry, and "forgets" or "learns"; p is None with one seed.
    """
    found = {
        (i, k, what): difference
        for i, ledger in enumerate(ledgers)
        for k, entry in enumerate(ledger.entries)
        for what, find in (("forgets", saved), ("learns", learned_more))
        if (difference := find(ledger, entry)) is not None
    }
    p = {key: value for key, one in found.items() if (value := one.p) is not None}
    by_key = dict(zip(p, holm(list(p.values())), strict=True))
    return {key: (one, by_key.get(key)) for key, one in found.items()}


def _seen(name: str, ledgers: Sequence[Ledger], tests: Found) -> str:
    """Where a method forgets less than `sequential` for sure and where not, and where it pays in learning."""
    places: dict[str, list[str]] = {}
    for i, ledger in enumerate(ledgers):
        named = [k for k, entry in enumerate(ledger.entries) if entry.name == name]
        for k in named:
            where = ledger.name + (ledger.entries[k].title.removeprefix(name) if len(named) > 1 else "")
            for what, words, sign in (("forgets", FORGETS, -1), ("learns", LEARNS, 1)):
                difference, p = tests.get((i, k, what), (None, None))
                if difference is not None and (said := words[_sign(difference, p)]):
                    places.setdefault(said, []).append(f"{where} {signed(sign * difference.mean)}")
    in_order = [words for words in (*FORGETS.values(), *LEARNS.values()) if words in places]
    return "<br>".join(f"{words}: {', '.join(places[words])}" for words in in_order) or NONE


def _sign(difference: Spread, p: float | None) -> int:
    """1 or −1 where the corrected p is below .05, else 0."""
    return 0 if p is None or p >= SIGNIFICANT else 1 if difference.mean > 0 else -1


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


def _title(entry: Entry, seeds: int) -> str:
    adapter = entry.config.adapter
    words = f"`{entry.name}`" + entry.title.removeprefix(entry.name)
    if adapter.per_stage != "continue":
        words += f", {adapter.per_stage} {'prompt' if adapter.kind == 'prompt' else 'adapter'} a stage"
    return words + (f" ({len(entry.results)} of {seeds} seeds)" if len(entry.results) < seeds else "")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}".replace("-", MINUS)


def _factor(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}×"


def _figure(found: Spread | None) -> str:
    return NONE if found is None else number(found.mean) + _half(found)


def _difference(found: Spread | None) -> str:
    return NONE if found is None else signed(found.mean) + _half(found)


def _half(found: Spread) -> str:
    return "" if found.interval is None else f" ± {number(found.interval[1] - found.mean)}"


def _kept(count: int) -> str:
    return byte_size(count) if count else "nothing"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written_reading(text: str) -> str:
    """The text written by hand under "Reading" on a page."""
    _, found, rest = text.partition(f"{READING}\n")
    return rest.split("\n## ")[0].strip() if found else NOTHING_READ


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m scripts.ledger STUDY_DIR...")
    before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    ledgers = [ledger for folder in sys.argv[1:] if (ledger := read_study(Path(folder))).entries]
    PAGE.write_text(page(ledgers, written_reading(before)), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, picture in pictures(ledgers).items():
        (PICTURES / name).write_text(picture, encoding="utf-8")
    print(PAGE, file=sys.stderr)
