"""CALM's key-value experiment, made and trained from nothing (docs/key-value.md)."""
