"""Tasks: public data sets, suites, and a user's own files; knows nothing of models."""

from forgetmenot.tasks.splits import digest_of, sample
from forgetmenot.tasks.suites import (
    check_tasks,
    expand,
    fingerprint,
    known_suites,
    known_tasks,
    load_tasks,
    refuse_twice,
)
from forgetmenot.tasks.task import Example, Generation, Kind, Split, Task

__all__ = [
    "Example",
    "Generation",
    "Kind",
    "Split",
    "Task",
    "check_tasks",
    "digest_of",
    "expand",
    "fingerprint",
    "known_suites",
    "known_tasks",
    "load_tasks",
    "refuse_twice",
    "sample",
]
