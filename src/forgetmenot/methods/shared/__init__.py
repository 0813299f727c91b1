"""What several methods share: the protocol and the hooks' helpers. No file here is a method."""
