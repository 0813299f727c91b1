"""Linear centred kernel alignment (CKA): how much two sets of states of the same inputs say the same."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
States = NDArray[np.floating[Any]]

NOTHING = 1e-12
"""A debiased product below this part of the biased one is rounding."""
RESAMPLES = 500
SEED = 20241020
CHUNK = 1024
"""Of a Gram matrix so many rows are there at a time."""


class Alignment(NamedTuple):
    """How alike two sets of states are.

    Attributes:
        debiased: 1 alike, 0 unrelated, at any number of inputs; it may lie a little below 0. NaN where one of
            them has no structure at all: the same in all rows, or all rows equally far apart.
        biased: The first definition, from 0 to 1, for comparison with papers.
        resampled: The debiased one over bootstrap samples of the inputs [resamples]; the same samples for all
            sets of as many inputs, so that differences may be taken sample by sample.
    """

    debiased: float
    biased: float
    resampled: Floats


def alignment(one: States, other: States, resamples: int = RESAMPLES) -> Alignment:
    """How alike two sets of states of the same inputs are, with its uncertainty over inputs.

    Debiased: HSIC₁(X, Y) / √(HSIC₁(X, X) HSIC₁(Y, Y)) (Murphy, Zylberberg and Fyshe 2024, arXiv 2405.01012),
    with HSIC₁ that of Song et al. (2012, "Feature Selection via Dependence Maximization", JMLR 13, eq. 5).
    Biased: see `biased_cka`. No matrix inputs × inputs is held.

    Args:
        one: [inputs, width]; four inputs or more.
        other: [inputs, another width].
        resamples: Bootstrap samples.
    """
    x, y = _centred(one), _centred(other)
    weights = np.concatenate([np.ones((len(x), 1)), _draws(len(x), resamples)], axis=1)
    xy, xx, yy = (hsic(*pair, weights) for pair in ((x, y), (x, x), (y, y)))
    # as `hsic` is a mean over pairs, and `_product` a sum
    flat = [found[0] <= NOTHING * _product(a, a) / len(a) ** 2 for found, a in ((xx, x), (yy, y))]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = xy / np.sqrt(np.where((xx > 0) & (yy > 0), xx * yy, np.nan))
    debiased = math.nan if any(flat) else float(values[0])
    return Alignment(debiased, biased_cka(one, other), values[1:])


class Change(NamedTuple):
    """How much of a layer's change is its own; see `own_change`. `resampled` as in `Alignment`."""

    value: float
    resampled: Floats


def own_change(
    entering: tuple[States, States], leaving: tuple[States, States], resamples: int = RESAMPLES
) -> Change:
    """How much a layer of two models does otherwise by itself: about 0 if only what it gets has changed.

    A state that has changed changes all layers above it. So this is the likeness of what goes into the layer,
    less the likeness of what it adds to that. Where all inputs go in alike, as all end in the same token and
    nothing was added yet, the first is 1. It is ours.

    Args:
        entering: What goes into the layer in each of the two models [inputs, width].
        leaving: What it gives [inputs, width].
        resamples: Bootstrap samples.
    """
    before = alignment(*entering, resamples)
    if not math.isfinite(before.debiased):
        before = Alignment(1.0, 1.0, np.ones(resamples))
    added = alignment(leaving[0] - entering[0], leaving[1] - entering[1], resamples)
    return Change(before.debiased - added.debiased, before.resampled - added.resampled)


def biased_cka(one: States, other: States) -> float:
    """Linear CKA as first defined, in fp64: from 0 to 1; NaN where one of them is the same in all rows.

    ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) after centring the columns (Kornblith et al. 2019, arXiv 1905.00414, eq. 3). It is
    biased: unrelated Gaussian states of width p read p / (p + n) in n rows.
    """
    x, y = _centred(one), _centred(other)
    apart = _product(x, x) * _product(y, y)
    return _product(x, y) / math.sqrt(apart) if apart > 0 else math.nan


def hsic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """The unbiased Hilbert–Schmidt independence criterion of linear kernels, by weights [samples].

    The U-statistic of Song et al. 2012, eq. 5, over inputs that are all different, each with a weight; with
    weights of 1 it is theirs. A bootstrap sample gives an input its count, and copies of one input are never
    held against each other: their likeness would read as dependence.

    Args:
        x: [inputs, width].
        y: [inputs, another width].
        weights: [inputs, samples], 0 or more.
    """
    squares = weights * weights
    pairs, ends, middles, squared_middles, both = (np.zeros(weights.shape[1]) for _ in range(5))
    sum_x, sum_y = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for begin in range(0, len(x), CHUNK):
        rows = slice(begin, begin + CHUNK)
        k, m = x[rows] @ x.T, y[rows] @ y.T
        own = np.arange(len(k)), np.arange(begin, begin + len(k))
        k[own], m[own] = 0, 0
        product, w, w2 = k * m, weights[rows], squares[rows]
        kw, mw, squared = k @ weights, m @ weights, product @ squares
        pairs += (w * (product @ weights)).sum(0)  # Σ wᵢwⱼ KᵢⱼLᵢⱼ
        ends += (w * squared).sum(0)  # Σ wᵢwⱼ² KᵢⱼLᵢⱼ
        both += (w2 * squared).sum(0)  # Σ wᵢ²wⱼ² KᵢⱼLᵢⱼ
        middles += (w * kw * mw).sum(0)  # Σ wᵢwⱼw_q KᵢⱼL_jq, i = q among them
        squared_middles += (w2 * kw * mw).sum(0)
        sum_x, sum_y = sum_x + (w * kw).sum(0), sum_y + (w * mw).sum(0)
    threes = middles - ends
    fours = sum_x * sum_y - 4 * squared_middles + 2 * both
    two, three, four = _distinct(weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = pairs / two + fours / four - 2 * threes / three
    return found


def _distinct(weights: Floats) -> tuple[Floats, Floats, Floats]:
    """The sums of the products of the weights of two, three and four different inputs, in any order."""
    squares = weights * weights
    a, b, c, d = (part.sum(0) for part in (weights, squares, squares * weights, squares * squares))
    return a**2 - b, a**3 - 3 * a * b + 2 * c, a**4 - 6 * a**2 * b + 3 * b**2 + 8 * a * c - 6 * d


def _draws(inputs: int, resamples: int) -> Floats:
    """How often each input is in each bootstrap sample [inputs, resamples]."""
    draw = np.random.default_rng(SEED)
    return draw.multinomial(inputs, np.full(inputs, 1 / inputs), size=resamples).T.astype(np.float64)


def _centred(values: States) -> Floats:
    exact = values.astype(np.float64)
    exact -= exact[0].copy()  # exactly 0 where all rows are the same
    found: Floats = exact - exact.mean(0)
    return found


def _product(x: Floats, y: Floats) -> float:
    """‖XᵀY‖², by what is smaller: inputs or widths."""
    if len(x) < min(x.shape[1], y.shape[1]):
        return float(((x @ x.T) * (y @ y.T)).sum())
    return float(np.square(x.T @ y).sum())
