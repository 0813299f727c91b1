"""The figures of `fmn limits`: accuracy and margin of every condition, and their correlation over tasks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from forgetmenot.metrics import Answers, MatrixRow, bootstrap, holm, measure, paired_difference, spread
from forgetmenot.metrics.correlation import COEFFICIENTS, correlate, correlation_interval, reliability
from forgetmenot.record.predictions import Predictions, as_measured
from forgetmenot.trials.limits_tasks import DIRECT, SAMPLEGEN

ALONE, GOLD, PIPELINE = "base", "gold", "pipeline"
MEASURES = ("accuracy", "above_majority", "margin")
PAPER = 0.851
"""Spearman's r of the paper, as a published summary has it."""
EVERY_MODEL = "mean of the models"
_ONE_ROW = (MatrixRow("00-base", (), follows=False),)

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Task → condition → figures."""


def scores_of(answers: Mapping[str, Mapping[str, Predictions]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of one model: task → condition → accuracy and margin with their intervals.

    Args:
        answers: Condition → task → answers.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for condition, of_tasks in answers.items():
        for task, predictions in of_tasks.items():
            found.setdefault(task, {})[condition] = _figures(predictions)
    return found


def _figures(answers: Predictions) -> dict[str, Any]:
    gold, said = as_measured("accuracy", answers)
    column = Answers("accuracy", gold, [said], answers.clusters, answers.options)
    accuracy, leads = measure("accuracy", gold, said).value, answers.leads
    assert accuracy is not None, "the tests are there"
    assert leads is not None, "choices by likelihood have leads"
    margin = spread(leads.tolist())
    n = len(leads)
    majority = Counter(answers.gold).most_common(1)[0][1] / n
    interval = bootstrap(_ONE_ROW, {"": column}).matrix[0][0]
    return {
        "n": n,
        "accuracy": accuracy,
        "accuracy_interval": list(interval) if interval else None,
        "accuracy_error": float(np.sqrt(accuracy * (1 - accuracy) / n)),
        "majority": majority,
        "above_majority": accuracy - majority,
        "margin": margin.mean,
        "margin_interval": list(margin.interval) if margin.interval else None,
        "margin_error": None if margin.std is None else margin.std / n**0.5,
    }


def differences_of(answers: Mapping[str, Mapping[str, Predictions]]) -> dict[str, dict[str, Any]]:
    """Task → the accuracy tuned directly minus that with gold examples in context, with its test."""
    found = {}
    for task, tuned in answers[DIRECT].items():
        in_context = answers[GOLD][task]
        gold, said = as_measured("accuracy", tuned)
        test = paired_difference(
            "accuracy",
            gold,
            said,
            as_measured("accuracy", in_context)[1],
            clusters=tuned.clusters,
            options=tuned.options,
        )
        interval = list(test.interval) if test.interval else None
        found[task] = {"difference": test.difference, "interval": interval, "p": test.p, "test": test.test}
    return found


def correct_differences(models: Sequence[dict[str, Any]]) -> None:
    """Correct the p values of all models and tasks for their number (Holm 1979)."""
    tests = [one for model in models for one in model["differences"].values() if one["p"] is not None]
    for test, p in zip(tests, holm([one["p"] for one in tests]), strict=True):
        test["p_holm"] = p


def is_solved(figures: Mapping[str, Any]) -> bool:
    """Whether a condition is above always saying the commonest label of the tests, by its whole interval."""
    interval = figures["accuracy_interval"]
    return interval is not None and interval[0] > figures["majority"]


def correlations_of(models: Sequence[Mapping[str, Any]], held_out: Sequence[str]) -> list[dict[str, Any]]:
    """The correlations over tasks of tuned models with what the base does in context.

    Of each model, and of the means over the models on each task where there are several. With tasks held
    out, also over these alone.

    Args:
        models: With their `model` and `scores`.
        held_out: The tasks that no model was tuned on.
    """
    sets = [(one["model"], [one["scores"]]) for one in models]
    if len(models) > 1:
        sets.append((EVERY_MODEL, [one["scores"] for one in models]))
    found = []
    for name, scores in sets:
        tasks = list(scores[0])
        for over, some in (("all", tasks), ("held out", [task for task in tasks if task in held_out])):
            if some:
                found += list(_correlations(name, over, some, scores))
    return found


def _correlations(
    model: str, over: str, tasks: Sequence[str], scores: Sequence[Scores]
) -> Iterator[dict[str, Any]]:
    for one, other in pairs_of(scores[0][tasks[0]]):
        for measured in MEASURES:
            x, y = ([_mean(scores, task, c, measured) for task in tasks] for c in (one, other))
            noise = [[_noise(scores, task, c, measured) for task in tasks] for c in (one, other)]
            sure = [reliability(values, errors) for values, errors in zip((x, y), noise, strict=True)]
            ceiling = None if None in sure else float(np.sqrt(np.prod(sure)))  # type: ignore[arg-type]
            for coefficient in COEFFICIENTS:
                yield {
                    "model": model,
                    "over": over,
                    "of": one,
                    "with": other,
                    "measure": measured,
                    **correlate(tasks, x, y, coefficient).to_json(),
                    "ceiling": ceiling,
                }


def pairs_of(conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The conditions that are correlated: each tuned model with what the base does in context."""
    pairs = [(DIRECT, name) for name in conditions if name not in (DIRECT, SAMPLEGEN)]
    return [*pairs, (SAMPLEGEN, PIPELINE), (SAMPLEGEN, GOLD)] if SAMPLEGEN in conditions else pairs


def paper_interval(n: int) -> list[float] | None:
    """What so many tasks would say of a correlation as high as the paper's."""
    interval = correlation_interval(PAPER, n)
    return list(interval) if interval else None


def _mean(scores: Sequence[Scores], task: str, condition: str, measured: str) -> float:
    return float(np.mean([one[task][condition][measured] for one in scores]))


def _noise(scores: Sequence[Scores], task: str, condition: str, measured: str) -> float:
    """The standard error of a mean over models, as if all erred alike: they share the tests."""
    key = "margin_error" if measured == "margin" else "accuracy_error"
    return float(np.mean([one[task][condition][key] or 0.0 for one in scores]))
