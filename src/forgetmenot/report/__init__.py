"""What people see of a run: the score matrix in a terminal, and the report as one HTML file."""

from forgetmenot.report.html import write_report
from forgetmenot.report.prompts import print_prompts, prompts_page
from forgetmenot.report.study import FIGURES, print_study, study_cells, study_markdown, study_table
from forgetmenot.report.terminal import LiveTable, print_matrix
from forgetmenot.report.wording import duration, setting

__all__ = [
    "FIGURES",
    "LiveTable",
    "duration",
    "print_matrix",
    "print_prompts",
    "print_study",
    "prompts_page",
    "setting",
    "study_cells",
    "study_markdown",
    "study_table",
    "write_report",
]
