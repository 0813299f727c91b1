"""Cross-fitted maxima: the stage chosen on one half, the drop read on the other; by hand and in the mean."""

import numpy as np
import pytest

from forgetmenot.metrics import Answers, MatrixRow, ScoreMatrix, UndefinedError, bootstrap
from forgetmenot.metrics.cross_fit import CROSS_FITTED, forgetting, haque_forgetting, haque_learning
from forgetmenot.metrics.resampling import percentiles

STAGES = (
    MatrixRow("00-base"),
    MatrixRow("01-a", ("a",)),
    MatrixRow("02-b", ("b",)),
    MatrixRow("03-c", ("c",)),
)


def half(*columns: list[float]) -> ScoreMatrix:
    return ScoreMatrix(("a", "b", "c"), STAGES, np.array(columns).T)


# On the first half a is best after stage 1, on the second after stage 2.
ONE = half([0.5, 0.9, 0.8, 0.6], [0.4, 0.4, 0.7, 0.5], [0.3, 0.3, 0.3, 0.8])
OTHER = half([0.5, 0.7, 0.8, 0.7], [0.4, 0.5, 0.9, 0.5], [0.3, 0.2, 0.3, 0.9])


def test_by_hand() -> None:
    # a: stage 1 by ONE, read on OTHER: .7 − .7; stage 2 by OTHER, read on ONE: .8 − .6.
    assert haque_forgetting((ONE, OTHER), "a") == pytest.approx((0.0 + 0.2) / 2)
    assert haque_learning((ONE, OTHER), "a") == pytest.approx(((0.7 - 0.5) + (0.8 - 0.5)) / 2)
    # b: stage 2 by both.
    assert haque_forgetting((ONE, OTHER), "b") == pytest.approx(((0.9 - 0.5) + (0.7 - 0.5)) / 2)
    # Over a and b, which were learned before the last stage, from stage 1 on.
    assert forgetting((ONE, OTHER)) == pytest.approx((0.1 + 0.3) / 2)
    # c is best at the end: nothing is forgotten.
    total = CROSS_FITTED["haque_forgetting_sum"]((ONE, OTHER))
    assert total == pytest.approx(0.1 + 0.3 + 0.0)
    assert CROSS_FITTED["haque_forgetting_mean"]((ONE, OTHER)) == pytest.approx(total / 3)


def test_of_a_stack_each_matrix_by_itself() -> None:
    stacks = tuple(
        ScoreMatrix(("a", "b", "c"), STAGES, np.stack([one.values, other.values]))
        for one, other in ((ONE, OTHER), (OTHER, ONE))
    )
    assert forgetting((stacks[0], stacks[1])) == pytest.approx([0.2, 0.2])


def test_without_a_sequence_there_is_nothing_to_fit() -> None:
    apart = tuple(MatrixRow(row.name, row.trains_on, follows=False) for row in STAGES)
    pair = [ScoreMatrix(("a", "b", "c"), apart, one.values) for one in (ONE, OTHER)]
    with pytest.raises(UndefinedError):
        haque_learning((pair[0], pair[1]), "a")


def test_noise_alone_gives_nothing_in_the_mean_where_the_plain_maximum_gives_something() -> None:
    generator = np.random.default_rng(0)
    rows = [
        MatrixRow("00-base"),
        *(MatrixRow(f"{j + 1:02d}-{name}", (name,)) for j, name in enumerate("abcd")),
    ]
    fitted, plain = [], []
    for _ in range(60):
        columns, shares = {}, []
        for task in "abcd":
            right = (generator.random((5, 100)) < 0.7).astype(int)
            columns[task] = Answers("accuracy", np.ones(100, dtype=int), list(right))
            shares.append(right.mean(axis=1))
        found = bootstrap(rows, columns, resamples=20).cross_fitted["haque_forgetting_mean"]
        assert found is not None
        fitted.append(found[0])
        plain.append(np.mean([share.max() - share[-1] for share in shares]))
    assert np.mean(plain) > 0.04
    assert abs(np.mean(fitted)) < 4 * np.std(fitted) / np.sqrt(len(fitted))


def test_one_cluster_alone_has_no_interval() -> None:
    assert percentiles(np.full(100, 0.5), 0.95, 1) is None
    assert percentiles(np.full(100, 0.5), 0.95, 2) == (0.5, 0.5)
