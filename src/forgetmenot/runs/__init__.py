"""The continual loop, the run directory and resume, the study (many runs)."""

from forgetmenot.runs.api import Run, run
from forgetmenot.runs.compare import compare
from forgetmenot.runs.preview import Preview, preview
from forgetmenot.runs.prompt_choice import PromptChoice, prompts
from forgetmenot.runs.receipts import compare_with_receipts
from forgetmenot.runs.reprobe import reprobe
from forgetmenot.runs.saved import export, rescore
from forgetmenot.runs.studies import Study, study

__all__ = [
    "Preview",
    "PromptChoice",
    "Run",
    "Study",
    "compare",
    "compare_with_receipts",
    "export",
    "preview",
    "prompts",
    "reprobe",
    "rescore",
    "run",
    "study",
]
