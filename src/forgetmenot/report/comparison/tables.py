"""The tables of a comparison: for a terminal, as CSV, and as LaTeX for a paper."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.metrics import Spread
from forgetmenot.report.comparison.comparison import HAQUE, USUAL, Comparison
from forgetmenot.report.comparison.conclusions import conclusions
from forgetmenot.report.csv_text import csv_text
from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import MINUS, NONE, number

SHOWN = ("haque_pretrained_mean", "haque_forgetting_sum", "haque_learning_sum", "haque_final_mean")
"""The columns of Haque's table that a terminal has room for."""

ALL = {**USUAL, **HAQUE}
"""The columns of the files, whatever a page shows."""

LATEX = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MINUS: "$-$",
})  # fmt: skip


def group_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each group: every figure, its deviation and its noise floor."""
    rows = []
    for group in comparison.groups:
        row: dict[str, Any] = {comparison.kind: group.name}
        row |= {"details": group.details} if any(one.details for one in comparison.groups) else {}
        row |= {"parameters": group.parameters}
        row |= {"runs": len(group.finished), "failed": len(group.runs) - len(group.finished)}
        for figure in ALL:
            found = group.spread(figure)
            row |= {figure: found and found.mean, f"{figure}_std": found and found.std}
            if (floor := group.noise_floor(figure)) is not None:
                row[f"{figure}_noise_floor"] = floor
        row["not_learned"] = ", ".join(f"{task} ({times})" for task, times in group.not_learned.items())
        rows.append(row)
    return rows


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each run: what varies, every figure, and why it failed if it did."""
    return [
        {
            **{key: comparison.level(run, key) for key in comparison.keys},
            **{figure: run.figure(figure) for figure in ALL},
            "run": run.name,
            "failed": run.failed,
        }
        for run in comparison.runs
    ]


def paired_test_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each paired test."""
    rows = []
    for test in comparison.tests:
        first, second = test.values or (None, None)
        judged = test.contrast
        low, high = judged.interval if judged else (None, None)
        rows.append(
            {
                "factor": comparison.kind if test.factor == "group" else test.factor,
                "first": test.first,
                "second": test.second,
                "figure": test.figure,
                "first_value": first,
                "second_value": second,
                "difference": judged and judged.difference,
                "low": low,
                "high": high,
                "p": judged and judged.p,
                "p_holm": test.p_holm,
                "seeds": judged and judged.seeds,
                "matched_runs": test.matched,
                "first_lower_in": test.lower,
                "reason": test.reason,
            }
        )
    return rows


def latex_table(comparison: Comparison) -> str:
    """The table of the groups for a paper that loads booktabs: means, and deviations over the runs."""
    columns = comparison.columns
    header = [comparison.kind, *columns.values()]
    rows = [[one.name, *(_latex(one.spread(figure)) for figure in columns)] for one in comparison.groups]
    body = "\n".join(" & ".join(cells) + r" \\" for cells in [[_escape(row[0]), *row[1:]] for row in rows])
    runs = {len(one.finished) for one in comparison.groups}
    each = f"{min(runs)}" if len(runs) == 1 else f"{min(runs)} to {max(runs)}"
    return (
        "% Needs \\usepackage{booktabs}. Mean over "
        f"{each} runs each, with the standard deviation over the runs in small print.\n"
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\toprule\n"
        f"{' & '.join(map(_escape, header))} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def groups_markdown(comparison: Comparison) -> str:
    """The table of the groups as Markdown: the mean over the runs, and the standard deviation."""
    header = [comparison.kind, *comparison.columns.values(), "runs"]
    rows = [
        [one.name, *(_plain(one.spread(figure)) for figure in comparison.columns), str(len(one.finished))]
        for one in comparison.groups
    ]
    return markdown_table([header, *rows])


def _plain(found: Spread | None) -> str:
    if found is None:
        return NONE
    return number(found.mean) + (f" ± {number(found.std)}" if found.std is not None else "")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the conclusions and the table of the groups."""
    for sentence in conclusions(comparison):
        console.print(Text(sentence))
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = SHOWN if comparison.haque else tuple(comparison.columns)
    for title in (comparison.kind, "runs", *(comparison.columns[figure] for figure in shown)):
        table.add_column(title, min_width=max(map(len, title.split())), overflow="fold")
    for group in comparison.groups:
        spreads = [group.spread(figure) for figure in shown]
        cells = [number(found.mean) if found else NONE for found in spreads]
        table.add_row(group.name, str(len(group.finished)), *cells)
    console.print(table)
    for sentence, runs in comparison.failures.items():
        console.print(Text(f"{failed_names([run.name for run in runs])} failed: {sentence}", style="red"))


def failed_names(names: Sequence[str]) -> str:
    """Runs that failed alike, in few words."""
    return names[0] if len(names) == 1 else f"{len(names)} runs ({names[0]} and others)"


def table_files(comparison: Comparison, name: str) -> dict[str, str]:
    """The tables as files: NAME.csv, NAME-runs.csv, NAME-tests.csv and NAME.tex, to what is in them."""
    return {
        f"{name}.csv": csv_text(group_rows(comparison)),
        f"{name}-runs.csv": csv_text(run_rows(comparison)),
        f"{name}-tests.csv": csv_text(paired_test_rows(comparison)),
        f"{name}.tex": latex_table(comparison),
    }


def _latex(found: Spread | None) -> str:
    if found is None:
        return "--"
    deviation = f" {{\\scriptsize $\\pm$ {found.std:.3f}}}" if found.std is not None else ""
    return _escape(number(found.mean)) + deviation


def _escape(text: str) -> str:
    return text.translate(LATEX)
