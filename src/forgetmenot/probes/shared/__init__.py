"""What several probes share: the protocol, judges and prompts. No file here is a probe."""
