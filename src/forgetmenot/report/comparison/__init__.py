"""The comparison of runs: the tests, the conclusions, and their tables and pages."""
