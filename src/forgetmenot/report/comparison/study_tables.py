"""The table of a study: one row for each cell of its grid, the seeds of a cell averaged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.csv_text import csv_text
from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import HEADLINES, NONE, number, setting, setting_among

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("average_performance", "backward_transfer", "forgetting", "learning_accuracy")
TITLES = [HEADLINES[name] for name in FIGURES]
GAP = 2  # spaces between the columns of the terminal's table
AVERAGED = "Mean ± standard deviation over the seeds; with one seed, its figure."


def study_table(study: Mapping[str, Any]) -> "pd.DataFrame":
    """One row for each run: the keys of the grid, the figures, and why it failed if it did.

    Args:
        study: The parsed `study.json`.
    """
    import pandas as pd

    return pd.DataFrame(_run_rows(study)).astype(dict.fromkeys(FIGURES, float))


def study_csv(study: Mapping[str, Any]) -> str:
    """The same table as the text of a CSV file."""
    return csv_text(_run_rows(study))


def _run_rows(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **{key: _value(value) for key, value in run["varies"].items()},
            **dict.fromkeys(FIGURES),
            **(run["figures"] or {}),
            "run": run["run"],
            "failed": run["failed"],
        }
        for run in study["runs"]
    ]


def study_cells(study: Mapping[str, Any]) -> "pd.DataFrame":
    """One row for each cell of the grid: its keys but the seed, and each figure's mean and std."""
    import pandas as pd

    rows = []
    for cell in study["cells"]:
        row = {key: _value(value) for key, value in cell["varies"].items()}
        row |= {"seeds": len(cell["runs"]), "failed": cell["failed"]}
        for name in FIGURES:
            figure = cell["figures"][name] or {"mean": None, "std": None}
            row |= {name: figure["mean"], f"{name}_std": figure["std"]}
        rows.append(row)
    numbers = [column for name in FIGURES for column in (name, f"{name}_std")]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def print_study(study: Mapping[str, Any], console: Console) -> None:
    """Print the table of the cells, what follows from it, and the runs that failed.

    Args:
        study: The parsed `study.json`.
        console: Where to print.
    """
    # Without what was not learned: a sentence says it, and eighty columns have no room for it.
    header, *rows = [row[:-1] for row in _cells(study)]
    words = [max(map(len, title.split())) for title in header]
    fits = sum(words) + GAP * (len(words) - 1) <= console.width
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for title, word in zip(header, words, strict=True):
        table.add_column(title, min_width=word if fits else None, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(Text(AVERAGED, style="dim"))
    for sentence in study.get("conclusions", ()):
        console.print(Text(f"\n{sentence}"))
    for sentence in _failures(study):
        console.print(Text(sentence, style="red"))


def study_markdown(study: Mapping[str, Any]) -> str:
    """What was found, the table of the cells and, where a cell has several, that of the runs, as Markdown."""
    parts = [f"# {study['name']}", *study.get("conclusions", ()), markdown_table(_cells(study)), AVERAGED]
    if len(study["cells"]) < len(study["runs"]):
        parts += ["## Runs", markdown_table(_runs(study))]
    if failures := list(_failures(study)):
        parts += ["## Failed", "\n".join(f"- {sentence}" for sentence in failures)]
    return "\n\n".join(parts) + "\n"


def _cells(study: Mapping[str, Any]) -> Iterator[list[str]]:
    keys = [key for key in _varying(study) if key != "seed"]
    yield [*keys, "seeds", *TITLES, "not learned"]
    for cell in study["cells"]:
        seeds = f"{len(cell['runs'])}" + (f", {cell['failed']} failed" if cell["failed"] else "")
        figures = [_spread(cell["figures"][name]) for name in FIGURES]
        not_learned = ", ".join(cell["not_learned"]) or NONE
        yield [*_settings(study, cell["varies"], keys), seeds, *figures, not_learned]


def _runs(study: Mapping[str, Any]) -> Iterator[list[str]]:
    keys = _varying(study)
    yield [*keys, *TITLES, "run"]
    for run in study["runs"]:
        figures = [number((run["figures"] or {}).get(name)) for name in FIGURES]
        yield [*_settings(study, run["varies"], keys), *figures, run["run"]]


def _settings(study: Mapping[str, Any], varies: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What tells a row from the others, a cell for each key."""
    return [setting_among(varies[key], (run["varies"][key] for run in study["runs"])) for key in keys]


def _varying(study: Mapping[str, Any]) -> list[str]:
    """The keys of the grid that take more than one value; all of them if none does."""
    keys = list(study["runs"][0]["varies"])
    many = [key for key in keys if len({setting(run["varies"][key]) for run in study["runs"]}) > 1]
    return many or keys


def _spread(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return NONE
    return number(figure["mean"]) + (f" ± {number(figure['std'])}" if figure["std"] is not None else "")


def _failures(study: Mapping[str, Any]) -> Iterator[str]:
    for run in study["runs"]:
        if run["failed"]:
            yield f"{run['run']} failed: {run['failed']}"


def _value(value: Any) -> Any:
    """A value of the grid for a table cell: numbers stay numbers."""
    return value if isinstance(value, int | float) else setting(value)
