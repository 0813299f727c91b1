"""Real models on public benchmarks: our values beside published ones, and beside lm-eval's own model."""
