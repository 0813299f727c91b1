"""What people see of a run: the score matrix in a terminal, and the report as one HTML file."""

from forgetmenot.report.html import write_report
from forgetmenot.report.preview import print_preview
from forgetmenot.report.study import FIGURES, print_study, study_cells, study_markdown, study_table
from forgetmenot.report.terminal import LiveTable, print_matrix
from forgetmenot.report.wording import duration, setting

__all__ = [
    "FIGURES",
    "LiveTable",
    "duration",
    "print_matrix",
    "print_preview",
    "print_study",
    "setting",
    "study_cells",
    "study_markdown",
    "study_table",
    "write_report",
]
