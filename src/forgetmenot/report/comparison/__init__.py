"""Runs side by side: the tests, the conclusions, and their tables and pages."""
