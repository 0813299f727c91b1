"""Which layers a curve points at, on curves whose answer is known."""

import math

import numpy as np
import pytest

from forgetmenot.metrics.layer_rules import bands, changed_most, half_of_the_change


def test_layers_changed_most_if_proven_above_half_of_the_largest() -> None:
    assert changed_most([0.01, 0.8, 0.7, 0.5], [0.0, 0.7, 0.5, 0.39]) == [1, 2]
    assert changed_most([-0.1, -0.2], [-0.3, -0.4]) == []
    assert changed_most([0.3, 0.2], [-0.1, -0.2]) == []  # nothing is proven
    assert changed_most([math.nan, 0.4], [math.nan, 0.3]) == [1]
    assert changed_most([math.nan], [math.nan]) == []
    assert changed_most([], []) == []


@pytest.mark.parametrize("cuts", [[], [9], [9, 20]])
def test_bands_find_the_places_at_which_a_noisy_curve_changes_its_level(cuts: list[int]) -> None:
    right = 0
    for seed in range(50):
        draw = np.random.default_rng(seed)
        levels = np.repeat([0.0, 0.3, 0.7][: len(cuts) + 1], np.diff([0, *cuts, 30]))
        right += bands((levels + draw.normal(0, 0.05, 30)).tolist(), [0.05] * 30) == cuts
    assert right >= 45


def test_bands_are_two_layers_or_more() -> None:
    assert bands([0, 0, 0, 9, 0, 0], [0.1] * 6, most=2) in ([2], [4], [3])
    assert bands([1, 2], [0.1, 0.1]) == []
    assert bands([1], [0.1]) == []
    assert bands([5, 5, 5, 5], [0, 0, 0, 0]) == []


def test_half_of_the_change_is_in_the_fewest_layers_and_each_task_counts_alike() -> None:
    assert half_of_the_change([]) == []
    assert half_of_the_change([[0.0, -1.0, math.nan]]) == []
    assert half_of_the_change([[0.1, 0.5, 0.2, 0.2]]) == [1]
    assert half_of_the_change([[0.25, 0.25, 0.25, 0.25]]) == [0, 1]
    assert half_of_the_change([[0.0, 0.0, 9.0], [0.06, 0.0, 0.04]]) == [2]
    assert half_of_the_change([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]) == [2]
    assert half_of_the_change([[5.0, 0.0, 0.0], [0.0, 0.01, 0.0]]) in ([0], [0, 1])
