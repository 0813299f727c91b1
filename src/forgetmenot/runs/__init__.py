"""The continual loop, the run directory and resume."""

from forgetmenot.runs.api import Run, run
from forgetmenot.runs.saved import export, rescore

__all__ = ["Run", "export", "rescore", "run"]
