"""Each task from the base model: what it can learn when nothing came before (SingleFT)."""

from typing import Literal

from forgetmenot.methods.shared.method import Method, Stage


class Single(Method):
    """Train each task alone from the base model."""

    def start(self, stage: Stage) -> Literal["previous", "base"]:
        """Every stage begins with the base model."""
        return "base"
