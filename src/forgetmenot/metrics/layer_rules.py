"""Which layers a curve over layers points at: rules of ours, since the papers read their plots by eye."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_BANDS = 3
"""MOSSA (arXiv 2410.20008) names three: shared, transition, refinement."""


def changed_most(values: Sequence[float], lows: Sequence[float]) -> list[int]:
    """The layers that changed most by themselves: proven above half of the largest change.

    Args:
        values: The own change of each layer; NaN where it is not known.
        lows: The lower ends of their intervals.

    Returns:
        Places in `values`, from below; empty where no change is proven.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return []
    bar = max(max(known) / 2, 0.0)
    return [k for k, low in enumerate(lows) if low > bar]


def half_of_the_change(changes: Sequence[Sequence[float]]) -> list[int]:
    """The fewest layers that together hold half of the own change, the mean over tasks.

    Args:
        changes: The own change of each layer, for each task; what is below 0, or is not known, counts as 0.

    Returns:
        Their numbers from 0, in order; empty where nothing has changed.
    """
    shares = np.asarray(shares_of_the_change(changes))
    if shares.sum() == 0:
        return []
    largest = np.argsort(-shares, kind="stable")
    enough = int(np.searchsorted(np.cumsum(shares[largest]), shares.sum() / 2 - 1e-12)) + 1
    return sorted(largest[:enough].tolist())


def shares_of_the_change(changes: Sequence[Sequence[float]]) -> list[float]:
    """The share of the own change that each layer holds, the mean over tasks; arguments as above."""
    if not changes:
        return []
    whole = np.nan_to_num(np.asarray(changes, dtype=np.float64)).clip(min=0)
    totals = whole.sum(axis=1, keepdims=True)
    shares = np.divide(whole, totals, out=np.zeros_like(whole), where=totals > 0)
    return [float(share) for share in shares.mean(0)]


def bands(values: Sequence[float], deviations: Sequence[float], most: int = MOST_BANDS) -> list[int]:
    """Where a curve over layers changes its level: it is cut into stretches that are each about constant.

    The cuts make Σ (value − its stretch's mean)² / deviation² + 3 · cuts · ln(layers) smallest, over all ways
    to make at most `most` stretches of two layers or more. The penalty is ours: each cut brings a level and a
    place, which BIC counts as two parameters; a third lets a slow slope pass.

    Args:
        values: One for each layer, all finite.
        deviations: Their standard errors; the floor is a hundredth of the curve's range, so that a curve
            without noise is not cut everywhere.
        most: Stretches.

    Returns:
        The first places of all stretches but the lowest.
    """
    curve = np.asarray(values, dtype=np.float64)
    count = len(curve)
    floor = max(float(np.ptp(curve)) / 100, 1e-9)
    weights = 1 / np.maximum(np.asarray(deviations, dtype=np.float64), floor) ** 2
    costs = _costs(curve, weights)
    best: dict[int, tuple[float, list[int]]] = {end: (costs[0, end], []) for end in range(2, count + 1)}
    found = best.get(count, (0.0, []))
    for cuts in range(1, most):
        step = {}
        for end in range(2 * (cuts + 1), count + 1):
            step[end] = min(
                (best[cut][0] + costs[cut, end], [*best[cut][1], cut]) for cut in range(2 * cuts, end - 1)
            )
        best = step
        penalty = 3 * math.log(count)
        if count in best and best[count][0] + penalty * cuts < found[0] + penalty * len(found[1]):
            found = best[count]
    return found[1]


def _costs(curve: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted squares about the mean of each stretch [from, to)."""
    count = len(curve)
    costs = np.full((count + 1, count + 1), math.inf)
    for begin in range(count):
        for end in range(begin + 1, count + 1):
            part, w = curve[begin:end], weights[begin:end]
            costs[begin, end] = float((w * (part - np.average(part, weights=w)) ** 2).sum())
    return costs
