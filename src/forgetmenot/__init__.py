"""Fine-tune one language model on one task after another, see what each step makes it forget, and stop it.

>>> import forgetmenot as fmn
>>> found = fmn.run({"model": "quickstart", "tasks": "quickstart"})
>>> fmn.preview({"tasks": "quickstart"}).print()   # what would run, and about how long
>>> found.matrix          # R[i][j]: the score on task j after stage i
>>> found.summary()       # average performance, backward transfer, forgetting, …
>>> found.report()        # the path of report.html
>>> fmn.prompts("quickstart", "quickstart").chosen   # the best prompt of each task, found on `select`
>>> fmn.study({"grid": {"method": ["sequential", "joint"], "seed": [0, 1]}}).table
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetmenot.config import RunConfig, load_config
    from forgetmenot.errors import UserError
    from forgetmenot.runs import Preview, PromptChoice, Run, Study, compare, preview, prompts, run, study
    from forgetmenot.study_config import StudyConfig, load_study

__version__ = "0.1.0"
__all__ = [
    "Preview",
    "PromptChoice",
    "Run",
    "RunConfig",
    "Study",
    "StudyConfig",
    "UserError",
    "__version__",
    "compare",
    "load_config",
    "load_study",
    "preview",
    "prompts",
    "run",
    "study",
]

_HOME = {
    "Run": "forgetmenot.runs",
    "run": "forgetmenot.runs",
    "Preview": "forgetmenot.runs",
    "preview": "forgetmenot.runs",
    "Study": "forgetmenot.runs",
    "study": "forgetmenot.runs",
    "PromptChoice": "forgetmenot.runs",
    "compare": "forgetmenot.runs",
    "prompts": "forgetmenot.runs",
    "RunConfig": "forgetmenot.config",
    "load_config": "forgetmenot.config",
    "StudyConfig": "forgetmenot.study_config",
    "load_study": "forgetmenot.study_config",
    "UserError": "forgetmenot.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module 'forgetmenot' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
