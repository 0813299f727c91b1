"""Many runs: the grid of a study, launching its runs, and comparing runs."""
