"""The figures on receipts: scores, tests, overrides, bins of confidence, and what is recovered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.metrics import (
    Answers,
    MatrixRow,
    bootstrap,
    by_confidence,
    calibration_error,
    holm,
    measure,
    overrides,
    paired_difference,
)
from forgetmenot.prompting.receipt_prompt import read_interpretation
from forgetmenot.receipts.fit import Receipt, Receipts
from forgetmenot.record.predictions import Predictions, as_measured
from forgetmenot.tasks import Task

SMALL, ALONE, WITH, WITHOUT_CONFIDENCE = "small model", "alone", "with receipt", "without confidence"
COMPARED = ((WITH, ALONE), (WITH, SMALL), (WITHOUT_CONFIDENCE, ALONE), (WITH, WITHOUT_CONFIDENCE))
_ONE_ROW = (MatrixRow("00-base", (), follows=False),)


@dataclass(frozen=True)
class Case:
    """A task with its receipts, and the three ways of scoring the language model."""

    task: Task
    receipts: Receipts
    scored: Mapping[str, ScoredTask]
    interpreter: ScoredTask | None

    @property
    def shown(self) -> list[Receipt]:
        """The receipts of the scored examples, in order."""
        by_id = {e.id: r for e, r in zip(self.task.score, self.receipts.given["score"], strict=True)}
        return [by_id[example.id] for example in self.scored[ALONE].examples]


def figures_row(case: Case, answers: Mapping[str, Predictions]) -> dict[str, Any]:
    """Scores, tests, overrides and bins of one task at one stage."""
    task, index = case.task, {label: k for k, label in enumerate(case.task.labels)}
    gold, _ = as_measured(task.metric, answers[ALONE])
    said = {SMALL: np.array([index[one.label] for one in case.shown])}
    said |= {how: as_measured(task.metric, one)[1] for how, one in answers.items()}
    confidence = [one.confidence for one in case.shown]
    return {
        "scores": {
            metric: {how: _score(metric, gold, one) for how, one in said.items()}
            for metric in (task.metric, *task.further_metrics)
        },
        "tests": [_test(task.metric, gold, said, *pair) for pair in COMPARED],
        "overrides": {
            how: overrides(gold, said[SMALL], said[how]).to_json() for how in (WITH, WITHOUT_CONFIDENCE)
        },
        "bins": by_confidence(confidence, gold, said),
    }


def _score(metric: str, gold: Any, said: Any) -> dict[str, Any]:
    measured = measure(metric, gold, said)
    interval = bootstrap(_ONE_ROW, {"": Answers(metric, gold, [said])}).matrix[0][0]
    return {
        "value": measured.value,
        "interval": interval,
        **({"reason": measured.reason} if measured.reason else {}),
    }


def _test(metric: str, gold: Any, said: Mapping[str, Any], one: str, other: str) -> dict[str, Any]:
    test = paired_difference(metric, gold, said[one], said[other])
    return {
        "of": one,
        "against": other,
        "difference": test.difference,
        "interval": test.interval,
        "p": test.p,
        "test": test.test,
        "reason": test.reason,
    }


def correct_tests(rows: Sequence[dict[str, Any]]) -> None:
    """Correct the p values for the number of tests in the table."""
    tests = [test for row in rows for test in row["tests"]]
    given = [test["p"] for test in tests if test["p"] is not None]
    corrected = iter(holm(given))
    for test in tests:
        test["p_holm"] = None if test["p"] is None else next(corrected)


def figures_of_interpreter(
    asked: ScoredTask, shown: Sequence[Receipt], texts: Sequence[str]
) -> dict[str, Any]:
    """What the interpreter's answers amount to, and the answers themselves."""
    read = [read_interpretation(text, asked.prompt.choices) for text in texts]
    gold = [str(example.label) for example in asked.examples]
    parsed = [k for k, one in enumerate(read) if one.label is not None]
    influences = [one.influence for one in read if one.influence is not None]
    named = [
        (one.features, e) for one, e in zip(read, asked.examples, strict=True) if one.features is not None
    ]
    there = [
        any(features.casefold() in str(value).casefold() for value in example.fields.values())
        for features, example in named
    ]
    return {
        "n": len(read),
        "could_not_parse": len(read) - len(parsed),
        "accuracy": float(np.mean([one.label == g for one, g in zip(read, gold, strict=True)])),
        "overrides": overrides(
            [gold[k] for k in parsed], [shown[k].label for k in parsed], [read[k].label for k in parsed]
        ).to_json(),
        "influence": float(np.mean(influences)) if influences else None,
        "influence_stated": len(influences),
        "features_stated": len(named),
        "features_in_the_input": int(sum(there)),
        "answers": list(texts),
    }


def about_case(case: Case) -> dict[str, Any]:
    """What does not change with the stage: the receipts, the prompts and what they cost."""
    alone = case.scored[ALONE]
    right = np.array([r.label == e.label for r, e in zip(case.shown, alone.examples, strict=True)])
    return {
        **case.receipts.described(case.task),
        "seconds": case.receipts.seconds,
        "n": len(alone.examples),
        "majority": alone.majority,
        "metric": case.task.metric,
        "calibration_error": calibration_error([one.confidence for one in case.shown], right),
        "prompt": alone.prompt.name,
        "prompt_hash": {how: one.prompt.hash for how, one in case.scored.items()},
        "tokens": {how: float(np.mean([len(e.prompt) for e in q.encoded])) for how, q in case.scored.items()},
        "truncated": {
            how: one.encoded.truncated
            for how, one in case.scored.items()
            if one.encoded.truncated["examples"]
        },
    }


def recovery(stages: Sequence[MatrixRow], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each task learned before the last stage: what was lost, and what the receipt gives back.

    recovered = (with receipt at the end − alone at the end) / (alone once learned − alone at the end), a
    definition of our own; None if nothing was lost, above 1 if the receipt gives more than was lost.
    """
    by_place = {(row["stage"], row["task"]): row for row in rows}
    last, found = stages[-1], []
    for task in dict.fromkeys(row["task"] for row in rows):
        learned = next((stage for stage in stages if task in stage.trains_on), last)
        own, end = by_place.get((learned.name, task)), by_place.get((last.name, task))
        if learned is last or own is None or end is None:
            continue
        metric = next(iter(end["scores"]))
        before = own["scores"][metric][ALONE]["value"]
        after, given = (end["scores"][metric][how]["value"] for how in (ALONE, WITH))
        lost = None if before is None or after is None else before - after
        found.append(
            {
                "task": task,
                "learned": before,
                "at_the_end": after,
                "with_receipt": given,
                "small_model": end["scores"][metric][SMALL]["value"],
                "lost": lost,
                "recovered": (given - after) / lost
                if lost is not None and lost > 0 and given is not None
                else None,
            }
        )
    return found
