"""What is asked: public data sets, suites, and files of one's own; knows nothing of models."""

from forgetmenot.tasks.suites import SUITES, expand, fingerprint, known_tasks, load_tasks
from forgetmenot.tasks.task import Example, Generation, Kind, Split, Task

__all__ = [
    "SUITES",
    "Example",
    "Generation",
    "Kind",
    "Split",
    "Task",
    "expand",
    "fingerprint",
    "known_tasks",
    "load_tasks",
]
