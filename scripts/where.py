"""Where runs forgot, as a Markdown table: layers, drift, and what brings a task back.

    python -m scripts.where RUN_DIR...

of runs with the probes `layers` and `drift` and with further readings (docs/probes.md).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from forgetmenot.record.layer_map import LAYERS, LayerMap, layer_maps
from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.record.results import RunResults, load_results
from forgetmenot.report.by_reading import recoveries
from forgetmenot.report.layer_table import numbered
from forgetmenot.report.verdict_words import difference_words, interval_words
from forgetmenot.report.wording import NONE, number, span

TITLES = (
    "task",
    "since its own stage",
    "its stage rewrote",
    "later stages rewrote",
    "likeness to the base at the end, least",
    "brought back at the end by",
)


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    for run in parser.parse_args().runs:
        results = load_results(run)
        print(f"\n{results.model}, {len(results.stages) - 1} stages, seed {results.seed}\n")
        print(*table(results), sep="\n")


def table(results: RunResults) -> Iterator[str]:
    """The lines of a run's table, a row for each task that it trained on."""
    maps = {one.task: one for one in layer_maps(results.probes[LAYERS], in_sequence=results.in_sequence)}
    helped = recoveries(results)
    yield f"| {' | '.join(TITLES)} |"
    yield "|---" * len(TITLES) + "|"
    for outcome in results.outcomes:
        own, found = results.own_stage(outcome.task), maps.get(outcome.task)
        if own is None or found is None:
            continue
        lost = outcome.own_end
        back = [
            f"{one.how}: {told(one.brought_back, outcome.metric)}" for one in helped.get(outcome.task, [])
        ]
        cells = (
            outcome.task,
            told(lost, outcome.metric) if lost else NONE,
            numbered(found.rewritten(own)) or NONE,
            numbered(later(found, own)) or NONE,
            least(found),
            "<br>".join(back) or NONE,
        )
        yield f"| {' | '.join(cells)} |"


def told(verdict: VerdictOf, metric: str) -> str:
    """A difference with its interval."""
    return f"{difference_words(verdict, metric)} ({interval_words(verdict, metric)})"


def later(found: LayerMap, own: int) -> list[int]:
    """The layers that any later stage rewrote."""
    return sorted({layer for i in range(own + 1, len(found.stages)) for layer in found.rewritten(i)})


def least(found: LayerMap) -> str:
    """The layer that is least like the base's after the last stage, and how alike it is."""
    last = len(found.base) - 1
    place = found.least_alike(last)
    if place is None:
        return NONE
    value, interval = found.base[last][place], found.spans[last][place]
    return f"layer {found.layers[place]}: {number(value)}" + (f" ({span(interval)})" if interval else "")


if __name__ == "__main__":
    main()
