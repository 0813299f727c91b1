"""What help brings back of a task: on answers whose outcome is known, and as `judge` judges each pair."""

import numpy as np
import pytest

from forgetmenot.metrics import Answers, MatrixRow, judge, recoveries

ROWS = [MatrixRow("00-base"), MatrixRow("01-a", ("a",)), MatrixRow("02-b", ("b",))]
MARGINS = {"a": 0.03, "b": 0.03, "watched": 0.03}
GOLD = np.ones(600, dtype=int)


def answers(*right: int | None) -> Answers:
    """Of each stage, how many of the examples it gets right, the first ones."""
    rows = [None if count is None else (np.arange(600) < count).astype(int) for count in right]
    return Answers("accuracy", GOLD, rows, options=2)


def test_what_is_brought_back_and_what_stays_lost() -> None:
    plain = {"a": answers(300, 540, 360), "b": answers(300, 310, 560), "watched": answers(300, 300, 200)}
    whole, part, none = answers(300, 540, 542), answers(300, 540, 430), answers(300, 540, 360)
    for helped, brought, lost in ((whole, "gained", "kept"), (part, "gained", "forgotten")):
        both = recoveries(ROWS, plain, {"a": helped, "b": helped, "watched": helped}, MARGINS)
        assert list(both) == ["a"]  # b was learned last, and the other never
        found = both["a"]
        assert (found["brought_back"].decision, found["still_lost"].decision) == (brought, lost)
    nothing = recoveries(ROWS, plain, {"a": none}, MARGINS)["a"]
    assert (nothing["brought_back"].decision, nothing["brought_back"].difference) == ("kept", 0)
    brought_back = recoveries(ROWS, plain, {"a": part}, MARGINS)["a"]["brought_back"]
    assert brought_back.difference == pytest.approx((430 - 360) / 600)
    assert brought_back.interval == judge({"a": answers(360, 430)}, MARGINS)["a"].interval


def test_only_the_same_examples_by_the_same_metric_are_compared_and_only_in_a_sequence() -> None:
    plain = {"a": answers(300, 540, 360)}
    other = Answers("macro_f1", GOLD, plain["a"].predicted, options=2)
    fewer = Answers("accuracy", GOLD[:9], [row[:9] for row in plain["a"].predicted], options=2)
    assert recoveries(ROWS, plain, {"a": other}, MARGINS) == {}
    assert recoveries(ROWS, plain, {"a": fewer}, MARGINS) == {}
    apart = [*ROWS[:2], MatrixRow("02-b", ("b",), follows=False)]
    assert recoveries(apart, plain, plain, MARGINS) == {}
    assert recoveries(ROWS[:2], plain, plain, MARGINS) == {}


def test_a_stage_that_could_not_be_asked_is_no_verdict() -> None:
    plain = {"a": answers(300, 540, 360)}
    found = recoveries(ROWS, plain, {"a": answers(300, 540, None)}, MARGINS)["a"]
    assert found["brought_back"].decision == "cannot tell"
    assert found["brought_back"].reason
