"""Reports: the score matrix in a terminal, HTML pages, and tables of many runs."""
