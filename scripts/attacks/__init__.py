"""Faults injected into small runs, and what became of the runs: see `scripts.reliability`."""
