"""Plain sequential fine-tuning: the baseline that forgets (SeqFT)."""

from forgetmenot.methods.shared.method import Method


class Sequential(Method):
    """Train on one task after another, with no protection against forgetting."""
