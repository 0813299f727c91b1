"""The choice of one set of parameters for all tasks: SELF-GUIDE's max-min rule."""

from collections.abc import Mapping
from typing import NamedTuple


class Parameters(NamedTuple):
    """What is searched; of equals the fewest epochs, then the lowest temperature."""

    epochs: int
    temperature: float


def max_min(
    scores: Mapping[Parameters, Mapping[str, float]], few_shot: Mapping[str, float]
) -> tuple[Parameters, str, float]:
    """The parameters whose least gain over few shots, of all tasks, is the greatest.

    SELF-GUIDE (Zhao et al. 2024, arXiv 2407.12874), by the official `find_one_params.py`, which takes the
    smallest of equal epochs too. Of equal temperatures the lowest is our own choice.

    Args:
        scores: Of each set of parameters, each search task's validation score.
        few_shot: Each search task's score by few shots.

    Returns:
        The parameters, the task that gains least by them, and that gain.

    Raises:
        ValueError: A set of parameters lacks a task.
    """
    least: dict[Parameters, tuple[float, str]] = {}
    for parameters, of_task in scores.items():
        if of_task.keys() != few_shot.keys():
            raise ValueError(f"{parameters} has scores of {sorted(of_task)}, not of {sorted(few_shot)}")
        least[parameters] = min((of_task[task] - few_shot[task], task) for task in few_shot)
    best = min(sorted(least), key=lambda one: -least[one][0])
    return best, least[best][1], least[best][0]
