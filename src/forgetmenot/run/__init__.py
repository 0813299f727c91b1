"""The continual loop, the run directory and resume."""

from forgetmenot.run.api import Run, run
from forgetmenot.run.saved import export, rescore

__all__ = ["Run", "export", "rescore", "run"]
