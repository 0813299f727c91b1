"""What people see of a run: the score matrix in a terminal, and the report as one HTML file."""

from forgetmenot.report.html import write_report
from forgetmenot.report.terminal import LiveTable, print_matrix

__all__ = ["LiveTable", "print_matrix", "write_report"]
