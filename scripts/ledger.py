"""Every method on every sequence, side by side: read the runs of studies, and write docs/methods.md.

    fmn study recipes/methods.yaml --workers 2
    python -m scripts.ledger studies/methods-*

Takes the runs that are there: a study that is still going gives a page of what it has so far. What stands
under "Reading" on the page was written by a person and stays.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.config import RunConfig, path_safe, read_resolved
from forgetmenot.methods import METHODS
from forgetmenot.metrics import spread
from forgetmenot.metrics.spread import Spread
from forgetmenot.models import AdapterSettings
from forgetmenot.report.wording import MINUS, NONE, number, setting, signed, size, span
from forgetmenot.study_config import load_study
from scripts.ledger_chart import LABEL, Bar, chart
from scripts.papers import PAPER_SAYS

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURES = PAGE.with_suffix("")
READING = "## Reading"
NOTHING_READ = "Not written yet."
BASELINES = ("sequential", "joint", "single")
FIGURES = {
    "average_performance": "AP",
    "backward_transfer": "BWT",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
}
ABOUT = """\
# Every method, side by side

Written by `python -m scripts.ledger` from the runs of `fmn study` with `recipes/methods.yaml` and the recipes
beside it, whose heads have the commands. All methods of a table have the same base model, data, passes and
seeds. An option that stands beside a name was chosen on the bundled tasks' `select` splits
(`recipes/methods-select.yaml`), or is what the study varies; all others are defaults.

- A picture's line goes from what was learned (ring) to what is left of it in the end (dot): what lies
  between is forgotten. The thin line is the 95 % interval of AP.
- A figure is its mean over the seeds ± half of the 95 % interval of that mean (Student's t).
- **saved**: how much less was forgotten than by `sequential` with the same adapter and seed.
- **gap closed**: (AP − AP of `sequential`) / (AP of `joint` − AP of `sequential`); only where the interval of
  the denominator excludes zero.
- **time**: seconds of training and scoring, over those of `sequential`. Soft: the machine had other work.
- **kept**: what the method stores in the end beside the weights. **added**: parameters beside the model's.
- `single` and the first stages of the task-vector methods learn each task from the base model, so their
  learning accuracy is what one task alone gives.
"""
TABLE = ("method", *FIGURES.values(), "saved", "gap closed", "time", "kept", "added", "past data")


@dataclass(frozen=True)
class Entry:
    """One method as it is set, with one adapter: its finished runs.

    Attributes:
        config: Of one of its runs; all but the seed is the same in all.
        title: The method and its options.
        results: Seed to what results.json holds.
        seconds: Seed to how long training and scoring took.
    """

    config: RunConfig
    title: str
    results: Mapping[int, Mapping[str, Any]]
    seconds: Mapping[int, float]

    @property
    def name(self) -> str:
        """The method's name."""
        return self.config.method.name

    def figure(self, name: str) -> dict[int, float]:
        """Seed to a figure of the summary, where it is defined."""
        values = {seed: one["summary"][name] for seed, one in self.results.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    @property
    def cost(self) -> Mapping[str, Any]:
        """What results.json says of costs; of the first seed, for they are alike."""
        cost: Mapping[str, Any] = next(iter(self.results.values()))["cost"]
        return cost


@dataclass(frozen=True)
class Ledger:
    """One study: its methods on one sequence of tasks."""

    name: str
    entries: Sequence[Entry]
    machines: Sequence[str]

    @property
    def seeds(self) -> list[int]:
        """All seeds of which there are runs."""
        return sorted({seed for entry in self.entries for seed in entry.results})

    def baseline(self, entry: Entry, name: str) -> Entry | None:
        """The run of a baseline that an entry is held against: with the same adapter.

        `joint` has one stage, so what its adapter does at a later one does not matter.
        """
        ours = entry.config.adapter.model_dump(exclude={"per_stage"} if name == "joint" else set())
        for other in self.entries:
            theirs = other.config.adapter.model_dump(exclude={"per_stage"} if name == "joint" else set())
            if other.name == name and ours == theirs:
                return other
        return None


def read_study(folder: Path) -> Ledger:
    """What a study has finished so far.

    Args:
        folder: Its directory, with study.yaml and runs/.
    """
    found: dict[str, list[Path]] = {}
    for results in sorted(folder.glob("runs/*/results.json")):
        found.setdefault(read_resolved(results.with_name("config.yaml")).hash, []).append(results.parent)
    entries = [_entry(runs) for runs in found.values()]
    machines = dict.fromkeys(_machine(path) for runs in found.values() for path in runs)
    return Ledger(load_study(folder / "study.yaml").name, entries, list(machines))


def _entry(runs: Sequence[Path]) -> Entry:
    results, seconds = dict[int, Any](), dict[int, float]()
    for path in runs:
        config = read_resolved(path / "config.yaml")
        results[config.seed] = json.loads((path / "results.json").read_text(encoding="utf-8"))
        timing = json.loads((path / "timing.json").read_text(encoding="utf-8"))
        seconds[config.seed] = sum(timing["train_s"]) + sum(timing["eval_s"])
    return Entry(config, setting(config.method.model_dump()), results, seconds)


def _machine(run: Path) -> str:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    identity = environment["identity"]
    return f"{environment['machine']}, {identity['threads']} thread(s) a run, {identity['precision']}"


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
        _file(ledger, group): chart([_bar(ledger, entry) for entry in group], _majority(group))
        for ledger in ledgers
        for group in by_adapter(ledger)
    }


def _bar(ledger: Ledger, entry: Entry) -> Bar:
    left = _spread(list(entry.figure("average_performance").values()))
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
        f"learned from {_at_most(training.limit)}; passes {setting(training.epochs)}, batches of "
        f"{training.batch_size}, learning rate {setting(training.learning_rate)}, texts cut to fit "
        f"{training.max_length:,} tokens; scored on {_at_most(evaluation.limit)}. Seeds "
        f"{', '.join(map(str, ledger.seeds))}. Machine: {'; '.join(ledger.machines)}."
    )


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
    lines = [f"**{kind}**", "", _line(TABLE), _line(["---"] * len(TABLE))]
    for entry in entries:
        added = entry.cost["parameters_added"]
        cells = [
            _title(entry, len(ledger.seeds)),
            *(_figure(entry.figure(name).values()) for name in FIGURES),
            _difference(saved(ledger, entry)),
            gap_closed(ledger, entry),
            _times(ledger, entry),
            _kept(list(entry.cost["memory_kept"].values())[-1]),
            f"{list(added.values())[-1]:,}",
            "yes" if entry.cost["past_data"] else "no",
        ]
        lines.append(_line(cells))
    majority = _majority(entries)
    if majority is not None:
        lines.append(_line([" *majority class*", number(majority), *[""] * (len(TABLE) - 2)]))
    return "\n".join(lines)


def _majority(entries: Sequence[Entry]) -> float | None:
    most = list(next(iter(entries[0].results.values()))["majority"].values())
    return None if None in most else sum(most) / len(most)


def saved(ledger: Ledger, entry: Entry) -> Spread | None:
    """How much less an entry forgets than `sequential` does, seed by seed."""
    return _paired(ledger, entry, "forgetting", lambda own, other: other - own)


def gap_closed(ledger: Ledger, entry: Entry) -> str:
    """The share of the gap between `sequential` and `joint` that is closed; a dash where there is no gap."""
    sequential, joint = (ledger.baseline(entry, name) for name in ("sequential", "joint"))
    if sequential is None or joint is None or entry.name in BASELINES:
        return NONE
    low, high = (one.figure("average_performance") for one in (sequential, joint))
    gap = _spread([high[seed] - low[seed] for seed in low.keys() & high.keys()])
    gained = _paired(ledger, entry, "average_performance", lambda own, other: own - other)
    if gap is None or gap.interval is None or gap.interval[0] <= 0 or gained is None:
        return NONE
    return f"{gained.mean / gap.mean:.0%}".replace("-", MINUS)


def comparison(ledgers: Sequence[Ledger]) -> str:
    """For each method what it keeps, what its paper claims, and what came of it here."""
    lines = [_line(("method", "keeps", "paper says", "we see")), _line(["---"] * 4)]
    for name, method in METHODS.items():
        if name in BASELINES:
            continue
        seen = [
            f"{ledger.name}: {sentence}"
            for ledger in ledgers
            for entry in ledger.entries
            if entry.name == name and (sentence := _seen(ledger, entry))
        ]
        lines.append(_line([f"`{name}`", method.keeps, PAPER_SAYS[name], "; ".join(seen) or NONE]))
    return "\n".join(lines)


def _seen(ledger: Ledger, entry: Entry) -> str:
    """What a method saved, and what it paid for that in what was learned."""
    kept = saved(ledger, entry)
    learned = _paired(ledger, entry, "learning_accuracy", lambda own, other: own - other)
    if kept is None or learned is None:
        return ""
    sure = kept.interval is not None and (kept.interval[0] > 0 or kept.interval[1] < 0)
    words = "forgets less" if kept.mean > 0 else "forgets more"
    if not sure:
        words = "no sure difference in forgetting"
    return (
        f"{words} ({signed(-kept.mean)}, {span(_negative(kept))}), learning accuracy {signed(learned.mean)}"
    )


def _negative(one: Spread) -> tuple[float, float] | None:
    return None if one.interval is None else (-one.interval[1], -one.interval[0])


def _paired(
    ledger: Ledger, entry: Entry, name: str, compare: Callable[[float, float], float]
) -> Spread | None:
    """A figure against that of `sequential`, over the seeds that both have finished."""
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None or sequential is entry or entry.name in BASELINES:
        return None
    own, other = entry.figure(name), sequential.figure(name)
    return _spread([compare(own[seed], other[seed]) for seed in own.keys() & other.keys()])


def _spread(values: Sequence[float]) -> Spread | None:
    return spread(values) if values else None


def _mean(entry: Entry, name: str) -> float:
    found = _spread(list(entry.figure(name).values()))
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


def _times(ledger: Ledger, entry: Entry) -> str:
    sequential = ledger.baseline(entry, "sequential")
    if sequential is None:
        return NONE
    both = entry.seconds.keys() & sequential.seconds.keys()
    ratio = _spread([entry.seconds[seed] / sequential.seconds[seed] for seed in both])
    return NONE if ratio is None else f"{ratio.mean:.1f}×"


def _figure(values: Any) -> str:
    found = _spread(list(values))
    return NONE if found is None else number(found.mean) + _half(found)


def _difference(found: Spread | None) -> str:
    return NONE if found is None else signed(found.mean) + _half(found)


def _half(found: Spread) -> str:
    return "" if found.interval is None else f" ± {number(found.interval[1] - found.mean)}"


def _kept(count: int) -> str:
    return size(count) if count else "nothing"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written_reading(text: str) -> str:
    """What a person wrote under "Reading" on a page."""
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
