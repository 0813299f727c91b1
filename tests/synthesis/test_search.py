"""The max-min rule on cases made by hand."""

import pytest

from forgetmenot.synthesis.search import Parameters, max_min

BASE = {"a": 0.5, "b": 0.2}


def test_the_greatest_least_gain_wins_not_the_greatest_mean() -> None:
    scores = {
        Parameters(1, 0.7): {"a": 0.55, "b": 0.26},  # gains .05 and .06
        Parameters(2, 0.7): {"a": 0.90, "b": 0.21},  # gains .40 and .01
        Parameters(3, 0.7): {"a": 0.40, "b": 0.90},  # loses .10
    }
    best, task, gain = max_min(scores, BASE)
    assert (best, task) == (Parameters(1, 0.7), "a")
    assert gain == pytest.approx(0.05)


def test_equals_take_the_fewest_epochs_and_then_the_lowest_temperature() -> None:
    same = {"a": 0.75, "b": 0.5}
    scores = {Parameters(e, t): same for e in (3, 2) for t in (0.6, 1.0)}
    assert max_min(scores, BASE)[0] == Parameters(2, 0.6)
    losses = {Parameters(1, 0.6): {"a": 0.4, "b": 0.1}, Parameters(2, 0.6): {"a": 0.45, "b": 0.1}}
    assert max_min(losses, BASE)[2] == pytest.approx(-0.1)


def test_every_task_must_have_been_scored() -> None:
    with pytest.raises(ValueError, match="has scores of"):
        max_min({Parameters(1, 0.6): {"a": 0.4}}, BASE)
