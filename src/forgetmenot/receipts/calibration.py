"""Calibrated confidence: temperature scaling."""

import numpy as np

from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.classifier import Labels

WIDEST = 5.0  # the logarithm of the temperature is sought within ± this: 1/148 to 148


def fitted_temperature(scores: Floats, labels: Labels) -> float:
    """The T that makes softmax(scores / T) likeliest on examples that the model was not fitted on.

    Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2): one
    number, which changes no answer. The likelihood is unimodal in T. Where every answer is right, or none is
    better than chance, it has no peak, and T is near an end of the range that is searched.

    Args:
        scores: Unnormalised log-probabilities [n, classes].
        labels: What was right [n].
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        picked = log_softmax(scores / np.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-picked.mean())

    found = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def log_softmax(scores: Floats) -> Floats:
    """Normalised log-probabilities [n, classes]."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised
