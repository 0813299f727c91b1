"""Tests of the words of one verdict."""

import math
import re
from typing import Any

import numpy as np
import pytest

from forgetmenot.metrics import Answers, judge
from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.report.verdict_words import (
    decision_words,
    difference_words,
    evidence,
    examples_words,
    interval_words,
    margin_words,
    move,
)


def a_verdict(decision: str = "kept", **given: Any) -> VerdictOf:
    plain: Any = {
        "decision": decision,
        "before": 0.6,
        "after": 0.483,
        "difference": -0.117,
        "interval": [-0.236, 0.002],
        "margin": 0.03,
        "lower_within_margin": False,
        "p": 0.07,
        "p_holm": 0.07,
        "test": "exact McNemar",
        "forgotten": 12,
        "gained": 5,
        "n": 60,
        "units": 60,
        "needed": None,
        "reason": None,
        **given,
    }
    told: VerdictOf = plain
    return told


@pytest.mark.parametrize(
    ("verdict", "metric", "words"),
    [
        (a_verdict("kept"), "accuracy", "kept"),
        (a_verdict("gained"), "accuracy", "gained"),
        (a_verdict("forgotten"), "accuracy", "forgotten"),
        (a_verdict("kept", lower_within_margin=True), "accuracy", "kept (lower, within 3 points)"),
        (a_verdict("kept", lower_within_margin=True, margin=0.025), "f1", "kept (lower, within 2.5 points)"),
        (a_verdict("kept", lower_within_margin=True, margin=0.01), "f1", "kept (lower, within 1 point)"),
        (a_verdict("kept", lower_within_margin=True, margin=0.05), "matthews", "kept (lower, within 0.05)"),
        # A loss that rose is worse: what people read has become higher.
        (
            a_verdict("kept", lower_within_margin=True, margin=0.05),
            "loss",
            "kept (higher, within 0.05 nats per token)",
        ),
        (
            a_verdict("cannot tell", needed=400),
            "accuracy",
            "cannot tell with 60 examples (about 400 would do)",
        ),
        (a_verdict("cannot tell", n=1, units=1), "accuracy", "cannot tell with 1 example"),
        (
            a_verdict("cannot tell", n=300, units=60, needed=1500),
            "f1",
            "cannot tell with 300 examples in 60 clusters (about 1,500 clusters would do)",
        ),
        (a_verdict("cannot tell", interval=None, reason="No score.", n=0, units=0), "f1", "cannot tell"),
    ],
)
def test_decisions(verdict: VerdictOf, metric: str, words: str) -> None:
    assert decision_words(verdict, metric) == words


def test_numbers_have_their_unit() -> None:
    verdict = a_verdict("cannot tell")
    assert evidence(verdict, "accuracy").replace("\N{NO-BREAK SPACE}", " ") == (
        "0.600 → 0.483, −11.7 points [95 %: −23.6 to +0.2], 60 examples"
    )
    assert (difference_words(verdict, "spearman"), interval_words(verdict, "spearman")) == (
        "−0.117",
        "−0.236 to +0.002",
    )
    assert margin_words(0.05, "loss") == "0.05 nats per token"
    assert examples_words(a_verdict(n=1234, units=1234)) == "1,234 examples"


def test_a_loss_is_told_as_perplexity_that_rose() -> None:
    before, after = -math.log(41.2), -math.log(112)
    verdict = a_verdict(
        "forgotten", before=before, after=after, difference=after - before, interval=[-1.05, -0.95]
    )
    assert evidence(verdict, "loss").replace("\N{NO-BREAK SPACE}", " ") == (
        "perplexity 41.2 → 112, +1.000 nats per token [95 %: +0.950 to +1.050], 60 examples"
    )
    assert move(-2.0, None, "loss").endswith("7.39\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}–")
    assert "∞" in move(-2.0, -800.0, "loss")


def test_a_missing_score_has_no_numbers() -> None:
    verdict = a_verdict("cannot tell", before=None, difference=None, interval=None, n=0, units=0)
    told = evidence(verdict, "accuracy")
    assert told.startswith("–")
    assert "95 %" not in told
    assert (difference_words(verdict, "f1"), interval_words(verdict, "f1")) == ("–", "–")


def test_the_words_of_a_real_verdict() -> None:
    """.600 → .483 with 60 examples is nothing that can be called kept."""
    gold = np.zeros(60, dtype=int)
    places = np.arange(60)
    before = np.where(places < 36, 0, 1)
    after = np.where((places >= 10) & (places < 39), 0, 1)  # 10 lost, 3 gained
    found: Any = judge({"task": Answers("accuracy", gold, [before, after])}, {"task": 0.03})["task"].to_json()
    assert (found["forgotten"], found["gained"]) == (10, 3)
    told = re.fullmatch(
        r"cannot tell with 60 examples \(about (\d+) would do\)", decision_words(found, "accuracy")
    )
    assert told
    assert int(told[1]) == found["needed"] > 60
