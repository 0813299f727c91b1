"""What people see of runs: the score matrix in a terminal, the reports as HTML files, and tables of many."""
