"""The source of tasks by name: a public benchmark, or the bundled suite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forgetmenot.tasks.task import Task


@dataclass(frozen=True)
class Source:
    """A benchmark.

    Attributes:
        titles: One line on each of its tasks, by name.
        load: Loads one of them by name, from `data_dir`, or from the hub where that is None.
        suites: The names of its tasks in a published order, by the suite's name.
    """

    titles: Mapping[str, str]
    load: Callable[[str, Path | None], Task]
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
