"""The formula behind every number, as a reader of a report sees it."""

from forgetmenot.metrics.metric import Formula
from forgetmenot.metrics.task_metrics import METRICS

_GEM = "Lopez-Paz and Ranzato 2017, arXiv 1706.08840"
_CHAUDHRY = "Chaudhry et al. 2018, arXiv 1801.10112"
_HAQUE = "Haque 2025, arXiv 2504.01241"
_INTERPRETED = f"{_HAQUE}; the paper prints no definition, this one is our interpretation"

# First the task metrics, then what is derived from the score matrix.
# R[i][j] is the score on task j after stage i; stage 0 is the base model, stage T the last one.
FORMULAS: dict[str, Formula] = {
    **{name: metric.formula for name, metric in METRICS.items()},
    "average_performance": Formula(
        "Average performance",
        "AP = 1/T · Σ_j R[T][j]",
        f"{_GEM} (ACC); TRACE, arXiv 2310.06762 (OP)",
        "The mean score over all learned tasks at the end.",
    ),
    "backward_transfer": Formula(
        "Backward transfer",
        "BWT = 1/(T−1) · Σ_{j<T} (R[T][j] − R[j][j])",
        f"{_GEM}; TRACE prints 1/T but its tables follow 1/(T−1)",
        "How much the earlier tasks changed between being learned and the end; below 0 is forgetting.",
    ),
    "forward_transfer": Formula(
        "Forward transfer",
        "FWT = 1/(T−1) · Σ_{j>1} (R[j−1][j] − R[0][j])",
        _GEM,
        "How much the earlier stages changed a task's score before its own training, against the base model.",
    ),
    "forgetting": Formula(
        "Forgetting (Chaudhry)",
        "F = 1/(T−1) · Σ_{j<T} (max_{1≤l<T} R[l][j] − R[T][j])",
        _CHAUDHRY,
        "How far the earlier tasks ended below their best score; noise alone makes it positive.",
    ),
    "learning_accuracy": Formula(
        "Learning accuracy",
        "LA = 1/T · Σ_j R[j][j]",
        "Riemer et al. 2019, arXiv 1810.11910",
        "The mean score of each task right after its own training.",
    ),
    "intransigence": Formula(
        "Intransigence",
        "I = 1/T · Σ_j (R*[j] − R[j][j]), R* from `joint` or `single`",
        f"{_CHAUDHRY}, averaged over the tasks",
        "How much worse each task was learned in the sequence than a reference model learned it.",
    ),
    "haque_forgetting": Formula(
        "Forgetting of a task (Haque)",
        "Forgetting_j = max_{0≤k≤T} R[k][j] − R[T][j]",
        _HAQUE,
        "How far a task ended below its best score, the base model's included; never below 0.",
    ),
    "haque_learning": Formula(
        "Learning of a task (Haque)",
        "Learning_j = max_{0≤k≤T} R[k][j] − R[0][j]",
        _HAQUE,
        "How far a task's best score rose above the base model's; never below 0.",
    ),
    "haque_forgetting_sum": Formula(
        "Forgetting, sum (Haque)",
        "Σ_j (max_{0≤k≤T} R[k][j] − R[T][j])",
        _INTERPRETED,
        "How far each task ended below its best score, the base model's included, added up over all tasks.",
    ),
    "haque_forgetting_mean": Formula(
        "Forgetting, mean (Haque)",
        "1/T · Σ_j (max_{0≤k≤T} R[k][j] − R[T][j])",
        _INTERPRETED,
        "How far each task ended below its best score, the base model's included, averaged over all tasks.",
    ),
    "haque_learning_sum": Formula(
        "Learning, sum (Haque)",
        "Σ_j (max_{0≤k≤T} R[k][j] − R[0][j])",
        _INTERPRETED,
        "How far each task's best score rose above the base model's, added up over the tasks.",
    ),
    "haque_learning_mean": Formula(
        "Learning, mean (Haque)",
        "1/T · Σ_j (max_{0≤k≤T} R[k][j] − R[0][j])",
        _INTERPRETED,
        "How far each task's best score rose above the base model's, averaged over the tasks.",
    ),
    "haque_pretrained_mean": Formula(
        "Pretrained performance", "1/T · Σ_j R[0][j]", _INTERPRETED, "The base model's mean score."
    ),
    "haque_final_mean": Formula(
        "Final performance",
        "1/T · Σ_j R[T][j] = 1/T · Σ_j R[0][j] + (ΣLearning − ΣForgetting)/T",
        _INTERPRETED,
        "The mean score at the end; it always equals the base model's plus learning minus forgetting.",
    ),
    "haque_stage_mean": Formula(
        "Performance over the stages",
        "1/T · Σ_{i≥1} (mean_j R[i][j])",
        _INTERPRETED,
        "The mean score over all tasks and all stages after the base model.",
    ),
    "haque_diagonal_mean": Formula(
        "Performance when learned",
        "1/T · Σ_j R[j][j]",
        _INTERPRETED,
        "The mean score of each task right after its own training.",
    ),
}
