"""Fine-tune one language model on task after task, measure what each step makes it forget, and prevent it.

>>> import forgetmenot as fmn
>>> found = fmn.run({"model": "quickstart", "tasks": "quickstart"})
>>> fmn.preview({"tasks": "quickstart"}).print()   # what would run, and about how long
>>> mine = fmn.init("tickets.csv")   # writes tickets.yaml, to be read and corrected
>>> found.matrix          # R[i][j]: the score on task j after stage i
>>> found.summary()       # average performance, backward transfer, forgetting, …
>>> found.report()        # the path of report.html
>>> fmn.watch(found.path).address   # the same page while a run goes on, for a browser on this machine
>>> fmn.prompts("quickstart", "quickstart").chosen   # the best prompt of each task, found on `select`
>>> fmn.check("quickstart", f"{found.path}:last", tasks=["quickstart"]).status   # 0 kept, 1 forgotten, 3 ?
>>> fmn.synthesize("quickstart", "triage.yaml", "out").found["funnel"]   # rows that the model wrote itself
>>> fmn.limits("quickstart", "quickstart", "out").correlations   # tuned models against examples in context
>>> fmn.known("settings", "training").print()   # each key with its type, default and meaning
>>> fmn.study({"grid": {"method": ["sequential", "joint"], "seed": [0, 1]}}).table
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetmenot.config import RunConfig, load_config
    from forgetmenot.errors import UserError
    from forgetmenot.gate.callback import ForgettingCallback
    from forgetmenot.gate.check import Check, check
    from forgetmenot.record.cache import clear_cache, kept_in_cache
    from forgetmenot.reference import Reference, known
    from forgetmenot.report.live import LivePage
    from forgetmenot.runs.api import Run, resume, run
    from forgetmenot.runs.export import export
    from forgetmenot.runs.preview import Preview, preview
    from forgetmenot.runs.reprobe import reprobe
    from forgetmenot.runs.rescore import rescore
    from forgetmenot.studies.compare import compare
    from forgetmenot.studies.config import StudyConfig, load_study
    from forgetmenot.studies.live import watch
    from forgetmenot.studies.study import Study, study
    from forgetmenot.trials.embed import EmbeddingResults, embed, export_embeddings, measure_embeddings
    from forgetmenot.trials.init import NewTask, init
    from forgetmenot.trials.limits import Limits, limits
    from forgetmenot.trials.prompts import PromptChoice, prompts
    from forgetmenot.trials.receipts import compare_with_receipts
    from forgetmenot.trials.synthesize import WrittenTask, synthesize
    from forgetmenot.trials.synthesize_general import synthesize_general
    from forgetmenot.trials.tune_embeddings import TunedEmbeddings, tune_embeddings

__version__ = "0.1.0"
__all__ = [
    "Check",
    "EmbeddingResults",
    "ForgettingCallback",
    "Limits",
    "LivePage",
    "NewTask",
    "Preview",
    "PromptChoice",
    "Reference",
    "Run",
    "RunConfig",
    "Study",
    "StudyConfig",
    "TunedEmbeddings",
    "UserError",
    "WrittenTask",
    "__version__",
    "check",
    "clear_cache",
    "compare",
    "compare_with_receipts",
    "embed",
    "export",
    "export_embeddings",
    "init",
    "kept_in_cache",
    "known",
    "limits",
    "load_config",
    "load_study",
    "measure_embeddings",
    "preview",
    "prompts",
    "reprobe",
    "rescore",
    "resume",
    "run",
    "study",
    "synthesize",
    "synthesize_general",
    "tune_embeddings",
    "watch",
]

_HOME = {
    "Run": "forgetmenot.runs.api",
    "run": "forgetmenot.runs.api",
    "resume": "forgetmenot.runs.api",
    "export": "forgetmenot.runs.export",
    "rescore": "forgetmenot.runs.rescore",
    "reprobe": "forgetmenot.runs.reprobe",
    "compare_with_receipts": "forgetmenot.trials.receipts",
    "kept_in_cache": "forgetmenot.record.cache",
    "clear_cache": "forgetmenot.record.cache",
    "Preview": "forgetmenot.runs.preview",
    "preview": "forgetmenot.runs.preview",
    "LivePage": "forgetmenot.report.live",
    "watch": "forgetmenot.studies.live",
    "Study": "forgetmenot.studies.study",
    "study": "forgetmenot.studies.study",
    "PromptChoice": "forgetmenot.trials.prompts",
    "prompts": "forgetmenot.trials.prompts",
    "EmbeddingResults": "forgetmenot.trials.embed",
    "embed": "forgetmenot.trials.embed",
    "export_embeddings": "forgetmenot.trials.embed",
    "measure_embeddings": "forgetmenot.trials.embed",
    "TunedEmbeddings": "forgetmenot.trials.tune_embeddings",
    "tune_embeddings": "forgetmenot.trials.tune_embeddings",
    "WrittenTask": "forgetmenot.trials.synthesize",
    "synthesize": "forgetmenot.trials.synthesize",
    "synthesize_general": "forgetmenot.trials.synthesize_general",
    "NewTask": "forgetmenot.trials.init",
    "init": "forgetmenot.trials.init",
    "Limits": "forgetmenot.trials.limits",
    "limits": "forgetmenot.trials.limits",
    "Check": "forgetmenot.gate.check",
    "check": "forgetmenot.gate.check",
    "compare": "forgetmenot.studies.compare",
    "ForgettingCallback": "forgetmenot.gate.callback",
    "Reference": "forgetmenot.reference",
    "known": "forgetmenot.reference",
    "RunConfig": "forgetmenot.config",
    "load_config": "forgetmenot.config",
    "StudyConfig": "forgetmenot.studies.config",
    "load_study": "forgetmenot.studies.config",
    "UserError": "forgetmenot.errors",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is needed: torch takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module 'forgetmenot' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """What a notebook completes."""
    return sorted(__all__)
