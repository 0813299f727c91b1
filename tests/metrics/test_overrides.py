"""Overrides, bins and calibration error, counted by hand."""

import pytest

from forgetmenot.metrics import by_confidence, calibration_error, overrides

GOLD = [0, 0, 1, 1, 2, 2]
RECEIPT = [0, 1, 1, 0, 2, 1]
ANSWER = [0, 0, 1, 0, 1, 0]
# Kept: 0, 2, 3 (wrong with the receipt). Overridden: 1 (rightly), 4 (wrongly), 5 (one wrong for another).


def test_overrides_by_hand() -> None:
    found = overrides(GOLD, RECEIPT, ANSWER)
    assert (found.n, found.overridden, found.right) == (6, 3, 1)
    assert found.rate == pytest.approx(3 / 6)
    assert found.precision == pytest.approx(1 / 3)
    assert found.to_json() == {"n": 6, "overridden": 3, "right": 1, "rate": 3 / 6, "precision": 1 / 3}


def test_what_was_never_overridden_has_no_precision_and_says_why() -> None:
    found = overrides(GOLD, RECEIPT, RECEIPT).to_json()
    assert (found["rate"], found["precision"]) == (0.0, None)
    assert found["reason"] == "No receipt was overridden."
    assert overrides([], [], []).rate is None


def test_bins_by_hand() -> None:
    found = by_confidence([0.55, 0.59, 0.6, 0.3, 1.0, 0.9], GOLD, {"receipt": RECEIPT, "answer": ANSWER})
    assert [(one["from"], one["to"], one["n"]) for one in found] == [
        (0.3, 0.4, 1), (0.5, 0.6, 2), (0.6, 0.7, 1), (0.9, 1.0, 2),
    ]  # fmt: skip
    assert [one["accuracy"]["receipt"] for one in found] == [0.0, 0.5, 1.0, 0.5]
    assert [one["accuracy"]["answer"] for one in found] == [0.0, 1.0, 1.0, 0.0]
    assert found[1]["confidence"] == pytest.approx(0.57)


def test_the_calibration_error_by_hand() -> None:
    # Bin 0.5: 2 of 3 right at a mean of 0.55; bin 0.9: 1 of 1 right at 0.95.
    found = calibration_error([0.5, 0.55, 0.6 - 1e-9, 0.95], [True, False, True, True])
    assert found == pytest.approx(3 / 4 * abs(2 / 3 - 0.55) + 1 / 4 * 0.05, abs=1e-6)
    assert calibration_error([1.0, 1.0], [True, True]) == 0
