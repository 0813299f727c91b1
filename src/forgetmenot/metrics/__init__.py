"""Task scores, the score matrix and what is derived from it, and how sure all of it is."""

from forgetmenot.metrics.formulas import CONTINUAL, Formula
from forgetmenot.metrics.intervals import MAXIMA, Answers, Intervals, bootstrap, noise_floor
from forgetmenot.metrics.matrix import (
    FIGURES,
    ScoreMatrix,
    Stage,
    UndefinedError,
    ability_delta,
    average_performance,
    backward_transfer,
    diagonal_mean,
    forgetting,
    forward_transfer,
    haque_forgetting,
    haque_forgetting_mean,
    haque_forgetting_sum,
    haque_learning,
    haque_learning_mean,
    haque_learning_sum,
    intransigence,
    learning_accuracy,
    pretrained_mean,
    stage_mean,
)
from forgetmenot.metrics.significance import PairedDifference, holm, mcnemar, paired_difference, significance
from forgetmenot.metrics.summary import Summary, summarize
from forgetmenot.metrics.task_metrics import METRICS, Measured, Metric, majority, measure

FORMULAS: dict[str, Formula] = {
    **CONTINUAL,
    **{name: metric.formula for name, metric in METRICS.items()},
}

__all__ = [
    "FIGURES",
    "FORMULAS",
    "MAXIMA",
    "METRICS",
    "Answers",
    "Formula",
    "Intervals",
    "Measured",
    "Metric",
    "PairedDifference",
    "ScoreMatrix",
    "Stage",
    "Summary",
    "UndefinedError",
    "ability_delta",
    "average_performance",
    "backward_transfer",
    "bootstrap",
    "diagonal_mean",
    "forgetting",
    "forward_transfer",
    "haque_forgetting",
    "haque_forgetting_mean",
    "haque_forgetting_sum",
    "haque_learning",
    "haque_learning_mean",
    "haque_learning_sum",
    "holm",
    "intransigence",
    "learning_accuracy",
    "majority",
    "mcnemar",
    "measure",
    "noise_floor",
    "paired_difference",
    "pretrained_mean",
    "significance",
    "stage_mean",
    "summarize",
]
