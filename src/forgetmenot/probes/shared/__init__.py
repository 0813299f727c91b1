"""Shared parts of the probes: the protocol, judges and prompts. No file here is a probe."""
