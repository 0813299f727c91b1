"""The continual loop, the run directory and resume, the study (many runs)."""

from forgetmenot.runs.api import Run, run
from forgetmenot.runs.preview import Preview, preview
from forgetmenot.runs.saved import export, rescore
from forgetmenot.runs.studies import Study, study

__all__ = ["Preview", "Run", "Study", "export", "preview", "rescore", "run", "study"]
