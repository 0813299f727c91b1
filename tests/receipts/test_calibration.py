"""The temperature against a search over a grid, and its properties."""

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax

from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.calibration import fitted_temperature, log_softmax
from forgetmenot.receipts.classifier import Labels


def drawn(factor: float, classes: int = 3, n: int = 500) -> tuple[Floats, Labels]:
    """Scores `factor` times too sure, and labels drawn from what they should be."""
    draw = np.random.default_rng(1)
    scores = draw.normal(size=(n, classes)) * 2
    labels = np.array([draw.choice(classes, p=row) for row in softmax(scores, axis=1)])
    return scores * factor, labels


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_no_temperature_of_a_grid_is_likelier(classes: int) -> None:
    scores, labels = drawn(2.5, classes)
    found = fitted_temperature(scores, labels)
    grid = np.exp(np.linspace(-3, 3, 601))
    losses = [-scipy_log_softmax(scores / t, axis=1)[np.arange(len(labels)), labels].mean() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.006)


def test_scores_that_are_too_sure_are_cooled_by_as_much() -> None:
    honest, labels = drawn(1.0)
    assert fitted_temperature(honest * 4, labels) == pytest.approx(
        4 * fitted_temperature(honest, labels), rel=1e-4
    )
    assert fitted_temperature(honest, labels) == pytest.approx(1.0, abs=0.15)


def test_where_the_likelihood_has_no_peak_the_temperature_is_extreme_and_finite() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    always, never = fitted_temperature(scores, np.array([0, 1])), fitted_temperature(scores, np.array([1, 0]))
    assert 0.005 < always < 0.05
    assert 100 < never < 150


def test_log_softmax_is_scipys() -> None:
    scores = np.array([[1e4, 0.0, -1e4], [0.1, 0.2, 0.3]])
    assert np.exp(log_softmax(scores)) == pytest.approx(softmax(scores, axis=1))
