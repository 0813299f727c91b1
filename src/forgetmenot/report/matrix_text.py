"""The score matrix of a run as text to take elsewhere: scores as people write them, a row for each stage."""

from forgetmenot.record.results import RunResults
from forgetmenot.report.csv_text import csv_text
from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import number


def matrix_csv(results: RunResults) -> str:
    """As CSV; what was not measured is empty."""
    return csv_text(
        [
            {
                "stage": stage.name,
                **{task: results.shown(task, row[j]) for j, task in enumerate(results.tasks)},
            }
            for stage, row in zip(results.stages, results.matrix, strict=True)
        ]
    )


def matrix_markdown(results: RunResults) -> str:
    """As a Markdown table, with three decimals."""
    rows = [
        [stage.name, *(number(results.shown(task, row[j])) for j, task in enumerate(results.tasks))]
        for stage, row in zip(results.stages, results.matrix, strict=True)
    ]
    return markdown_table([["after stage", *results.tasks], *rows])
