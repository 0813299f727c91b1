"""The table of a finished study of recipes/key-value.yaml: `python -m scripts.key_value.table STUDY`.

A cell is the share of right answers in percent, the mean over the seeds. In brackets are the lowest and the
highest end of the seeds' 95 % intervals (Wilson).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from forgetmenot.errors import UserError
from forgetmenot.record.layout import CONFIG, RESULTS
from forgetmenot.record.result_schema import Results
from forgetmenot.record.results import read_results_file
from forgetmenot.tasks.yaml_file import read_yaml

AUGMENTING, ANCHOR = "augmenting model", "anchor"
COMPOSED = {
    "augmenting": "composed",
    "random": "random augmenting model",
    "encoder": "augmenting model as encoder",
}
LORA = "LoRA of the same size"
LEARNED = {"learn-substitution": "substitution learned", "learn-arithmetic": "arithmetic learned"}


class Cell(NamedTuple):
    """A share of right answers, and the ends of its interval."""

    score: float
    low: float
    high: float


def table(study: Path) -> list[str]:
    """The lines of the table, in Markdown."""
    found: dict[str, list[dict[str, Cell]]] = defaultdict(list)
    for path in sorted(study.rglob(RESULTS)):
        for name, cells in rows_of(path.parent):
            found[name].append(cells)
    if not found:
        raise UserError(f"{study} holds no finished run: begin with fmn study recipes/key-value.yaml.")
    tasks = list(next(iter(found.values()))[0])
    lines = [f"| | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for name in sorted(found, key=_place):
        columns = [_written([cells[task] for cells in found[name]]) for task in tasks]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def _place(name: str) -> tuple[int, bool]:
    """Where a row stands: in the order of the names above, the paper's data first."""
    kind = name.partition(";")[0].partition(",")[0]
    return (AUGMENTING, ANCHOR, *COMPOSED.values(), LORA).index(kind), LEARNED["learn-arithmetic"] in name


def rows_of(run: Path) -> Iterator[tuple[str, dict[str, Cell]]]:
    """What a run measured, by model: what it began with, and what came of it."""
    config, results = read_yaml(run / CONFIG), read_results_file(run)
    assert results is not None
    if Path(config["model"]["name"]).name == "augmenting":
        yield AUGMENTING, _cells(results, 0)
        return
    yield ANCHOR, _cells(results, 0)
    adapter = config["adapter"]
    bridged = adapter["kind"] == "bridge"
    kind = COMPOSED[Path(adapter["augmenting"]["name"]).name] if bridged else LORA
    joined = f", {_connections(adapter['connections'])}" if bridged else ""
    learned = LEARNED[Path(config["tasks"][0]).stem]
    precise = " (fp32)" if config["training"]["precision"] == "fp32" else ""
    yield f"{kind}{joined}; {learned}{precise}", _cells(results, -1)


def _connections(count: int | str) -> str:
    return f"{count} connection{'' if count == 1 else 's'}"


def _cells(results: Results, stage: int) -> dict[str, Cell]:
    cells = {}
    for k, task in enumerate(results["tasks"]):
        score, interval = results["matrix"][stage][k], results["intervals"]["matrix"][stage][k]
        if score is None or interval is None:
            raise UserError(f"{task} has no score in one of the runs; its report says why.")
        cells[task] = Cell(score, *interval)
    return cells


def _written(seeds: Sequence[Cell]) -> str:
    low, high = min(cell.low for cell in seeds), max(cell.high for cell in seeds)
    return f"{100 * mean(cell.score for cell in seeds):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    try:
        print("\n".join(table(parser.parse_args().study)))
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
