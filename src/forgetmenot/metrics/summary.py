"""The summary of a run: every figure of its score matrix, or the reason why there is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forgetmenot.metrics.matrix import FIGURES, ScoreMatrix, UndefinedError, haque_forgetting, haque_learning
from forgetmenot.metrics.metric import Floats
from forgetmenot.metrics.task_metrics import metric_named


@dataclass(frozen=True)
class Summary:
    """Figures of a score matrix.

    Attributes:
        figures: The names of `FIGURES` to numbers, None where undefined.
        forgetting: Haque's forgetting, task to number.
        learning: Haque's learning, task to number.
        over: The tasks that all of this was taken over.
        reasons: Why a figure is None (by its name), and which tasks were left out (under "over").
    """

    figures: dict[str, float | None]
    forgetting: dict[str, float | None]
    learning: dict[str, float | None]
    over: tuple[str, ...]
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the `summary` of results.json: Haque's figures are under "haque" without their prefix."""
        prefix = "haque_"
        plain = {name: value for name, value in self.figures.items() if not name.startswith(prefix)}
        haque = {
            name.removeprefix(prefix): value for name, value in self.figures.items() if name not in plain
        }
        return {
            **plain,
            "haque": {"forgetting": self.forgetting, "learning": self.learning, **haque},
            "over": list(self.over),
            "reasons": self.reasons,
        }


def summarize(matrix: ScoreMatrix, metrics: Mapping[str, str]) -> Summary:
    """Derive every figure from one score matrix.

    Args:
        matrix: One matrix, not a stack.
        metrics: Task to the name of its metric. Means are over trained tasks whose metric is bounded; tasks
            scored by their loss are averaged among themselves only where no other was trained.
    """
    reasons: dict[str, str] = {}
    kept = comparable(matrix, metrics)
    left_out = [task for task in matrix.trained if task not in kept.tasks]
    if left_out:
        reasons["over"] = f"Left out, since their metric has no fixed range: {', '.join(left_out)}."

    def number(name: str, figure: Callable[..., Floats], *task: str) -> float | None:
        try:
            return float(figure(kept, *task))
        except UndefinedError as undefined:
            reasons.setdefault(name, str(undefined))
            return None

    return Summary(
        figures={name: number(name, figure) for name, figure in FIGURES.items()},
        forgetting={task: number("haque_forgetting", haque_forgetting, task) for task in kept.tasks},
        learning={task: number("haque_learning", haque_learning, task) for task in kept.tasks},
        over=kept.tasks,
        reasons=reasons,
    )


def comparable(matrix: ScoreMatrix, metrics: Mapping[str, str]) -> ScoreMatrix:
    """Return the trained columns, in the order learned, that may be averaged with one another."""
    bounded = [task for task in matrix.trained if metric_named(metrics[task]).bounded]
    return matrix.only(bounded or matrix.trained)
