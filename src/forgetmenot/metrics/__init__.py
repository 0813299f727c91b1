"""Task scores, the score matrix and what is derived from it, and how sure all of it is."""

from forgetmenot.metrics.answers import Answers
from forgetmenot.metrics.contrast import MOST_FLIPPED, Contrast, contrast, sign_flip
from forgetmenot.metrics.formulas import FORMULAS
from forgetmenot.metrics.intervals import Intervals, bootstrap, cell_intervals, replicates
from forgetmenot.metrics.label_metrics import NO_LABEL
from forgetmenot.metrics.matrix import (
    FIGURES,
    MatrixRow,
    ScoreMatrix,
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
from forgetmenot.metrics.metric import Formula, Metric
from forgetmenot.metrics.noise_floor import MAXIMA, noise_floor
from forgetmenot.metrics.overrides import Overrides, by_confidence, calibration_error, overrides
from forgetmenot.metrics.ranking import Ranked, Ranking, rank_variants
from forgetmenot.metrics.recovery import BROUGHT_BACK, STILL_LOST, recoveries
from forgetmenot.metrics.sequential import (
    SequentialTest,
    decide,
    e_holm,
    example_differences,
    seeded_batches,
)
from forgetmenot.metrics.significance import PairedDifference, holm, mcnemar, paired_difference
from forgetmenot.metrics.spread import Spread, spread
from forgetmenot.metrics.summary import Summary, comparable, summarize
from forgetmenot.metrics.tango import tango, tango_bounds
from forgetmenot.metrics.task_metrics import METRICS, Measured, known_metrics, measure, metric_named
from forgetmenot.metrics.verdicts import PAIRS, Verdict, judge, margin_of, smallest_drop, verdicts

__all__ = [
    "BROUGHT_BACK",
    "FIGURES",
    "FORMULAS",
    "MAXIMA",
    "METRICS",
    "MOST_FLIPPED",
    "NO_LABEL",
    "PAIRS",
    "STILL_LOST",
    "Answers",
    "Contrast",
    "Formula",
    "Intervals",
    "MatrixRow",
    "Measured",
    "Metric",
    "Overrides",
    "PairedDifference",
    "Ranked",
    "Ranking",
    "ScoreMatrix",
    "SequentialTest",
    "Spread",
    "Summary",
    "UndefinedError",
    "Verdict",
    "ability_delta",
    "average_performance",
    "backward_transfer",
    "bootstrap",
    "by_confidence",
    "calibration_error",
    "cell_intervals",
    "comparable",
    "contrast",
    "decide",
    "diagonal_mean",
    "e_holm",
    "example_differences",
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
    "judge",
    "known_metrics",
    "learning_accuracy",
    "margin_of",
    "mcnemar",
    "measure",
    "metric_named",
    "noise_floor",
    "overrides",
    "paired_difference",
    "pretrained_mean",
    "rank_variants",
    "recoveries",
    "replicates",
    "seeded_batches",
    "sign_flip",
    "smallest_drop",
    "spread",
    "stage_mean",
    "summarize",
    "tango",
    "tango_bounds",
    "verdicts",
]
