"""Many runs: the grid of a study, launching its runs, and runs held side by side."""
