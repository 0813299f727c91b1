"""Intervals cover and tests keep their level: the simulations whose tables docs/statistics.md shows."""

import pytest

from scripts.coverage import MAXIMA, SCENES, SHOWN, covered
from scripts.false_positives import rates


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_every_printed_interval_covers(scene: dict[str, int]) -> None:
    """Nominal 95 %; 400 trials have a standard error of 1.1 points, so that 90 % is four below 94.5 %."""
    found = covered(scene["tasks"], scene["n"], change=bool(scene["change"]), trials=400)
    assert {*SHOWN, *MAXIMA} <= set(found)
    assert all(share >= 0.90 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.0, 0.03, 0.05])
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_methods_are_seldom_told_apart(seeds: int, deviation: float) -> None:
    """At most 7 %: 1,500 trials of 6 % have a standard error of .6 points."""
    both, alone = rates(seeds, 200, deviation, trials=1500)
    assert both <= 0.075
    if deviation == 0.05:
        assert alone > 0.25, "over the examples alone the seed passes for a difference of the methods"


def test_the_simulations_run() -> None:
    found = covered(4, 60, change=True, trials=5)
    assert {*SHOWN, *MAXIMA} <= set(found)
    both, alone = rates(3, 50, 0.05, trials=20)
    assert 0 <= both <= 1
    assert 0 <= alone <= 1
