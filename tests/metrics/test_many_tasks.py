"""Figures over many tasks: what is done for each does not grow with their number."""

from collections.abc import Iterator

import numpy as np

from forgetmenot.metrics import MatrixRow, ScoreMatrix
from forgetmenot.metrics.matrix import FIGURES


class Counted(tuple[str, ...]):
    """Names that count how often one of them is looked at or looked for."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            Counted.looks += 1
            yield name

    def __contains__(self, name: object) -> bool:
        return any(one == name for one in self)

    def index(self, name: str, *_: int) -> int:  # type: ignore[override]
        """Where it stands."""
        return next(k for k, one in enumerate(self) if one == name)


def looks(count: int) -> int:
    """How often names are looked at for all figures of so many tasks that were learned at once."""
    tasks = Counted(f"task-{k}" for k in range(count))
    stages = (MatrixRow("00-base"), MatrixRow("01-first", (tasks[0],)), MatrixRow("02-all", tasks))
    Counted.looks = 0
    matrix = ScoreMatrix(tasks, stages, np.full((3, count), 0.5))
    for figure in FIGURES.values():
        figure(matrix)
    return Counted.looks


def test_names_are_looked_at_in_proportion_to_the_tasks() -> None:
    assert looks(80) <= 2 * looks(40)
