"""Text from a model that is asked for it: rationales for answers that are known, a model at an endpoint."""
