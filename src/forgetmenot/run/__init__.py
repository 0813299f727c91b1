"""The continual loop, the run directory and resume."""

import sys
from types import ModuleType
from typing import Any

from forgetmenot.run.api import Run, run
from forgetmenot.run.saved import export, rescore

__all__ = ["Run", "export", "rescore", "run"]


class _Verb(ModuleType):
    """Importing a subpackage binds its name in the package: `fmn.run` must stay the verb all the same."""

    def __call__(self, *arguments: Any, **named: Any) -> Run:
        return run(*arguments, **named)


sys.modules[__name__].__class__ = _Verb
