"""Text from a model on request: rationales for known answers, and a model at an endpoint."""
