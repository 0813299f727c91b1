"""What people see of runs: the score matrix in a terminal, the reports as HTML files, and tables of many."""

from forgetmenot.report.compared import ComparedRun, read_run
from forgetmenot.report.comparison import Comparison
from forgetmenot.report.comparison_html import comparison_page
from forgetmenot.report.comparison_tables import print_comparison, table_files
from forgetmenot.report.conclusions import conclusions
from forgetmenot.report.html import write_report
from forgetmenot.report.preview import print_preview
from forgetmenot.report.probes import print_probes
from forgetmenot.report.prompts import print_prompts, prompts_page
from forgetmenot.report.receipts import print_receipts, receipts_markdown
from forgetmenot.report.study import FIGURES, print_study, study_cells, study_markdown, study_table
from forgetmenot.report.terminal import LiveTable, print_matrix
from forgetmenot.report.wording import duration, listed, setting

__all__ = [
    "FIGURES",
    "ComparedRun",
    "Comparison",
    "LiveTable",
    "comparison_page",
    "conclusions",
    "duration",
    "listed",
    "print_comparison",
    "print_matrix",
    "print_preview",
    "print_probes",
    "print_prompts",
    "print_receipts",
    "print_study",
    "prompts_page",
    "read_run",
    "receipts_markdown",
    "setting",
    "study_cells",
    "study_markdown",
    "study_table",
    "table_files",
    "write_report",
]
