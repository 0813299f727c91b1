"""The continual loop, the run directory and resume, the study (many runs)."""
