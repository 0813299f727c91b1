"""Sentence embeddings: how a sentence becomes a vector, what that is worth, and how to tune it."""
