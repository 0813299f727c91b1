"""Bootstrap intervals and the noise floor: exactness, coverage, speed, the last bit."""

import json
import time
from typing import Any

import numpy as np
import pytest

from forgetmenot.metrics import (
    MAXIMA,
    Answers,
    MatrixRow,
    ScoreMatrix,
    bootstrap,
    cell_intervals,
    measure,
    noise_floor,
    replicates,
    summarize,
)


def sequence(tasks: str) -> list[MatrixRow]:
    return [
        MatrixRow("00-base"),
        *(MatrixRow(f"{i:02}-{task}", (task,)) for i, task in enumerate(tasks, start=1)),
    ]


def right_with(generator: np.random.Generator, gold: Any, share: float) -> Any:
    return np.where(generator.random(len(gold)) < share, gold, 1 - gold)


def column(seed: int, shares: list[float], n: int, metric: str = "accuracy") -> Answers:
    """Return a column whose answers are right with these probabilities, each on its own."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 2, n)
    return Answers(metric, gold, [right_with(generator, gold, share) for share in shares])


def figures_of(stages: list[MatrixRow], columns: dict[str, Answers]) -> dict[str, float | None]:
    rows = [
        [measure(a.metric, a.gold, a.predicted[i]).value for a in columns.values()]
        for i in range(len(stages))
    ]
    metrics = {task: answers.metric for task, answers in columns.items()}
    return summarize(ScoreMatrix(tuple(columns), tuple(stages), np.array(rows, float)), metrics).figures


def test_every_cell_and_figure_lies_within_its_interval() -> None:
    stages, shares = sequence("ab"), [0.5, 0.9, 0.7]
    columns = {"a": column(1, shares, 400), "b": column(2, shares[::-1], 300, "matthews")}
    intervals = bootstrap(stages, columns)
    for j, answers in enumerate(columns.values()):
        for i in range(3):
            cell, score = intervals.matrix[i][j], measure(answers.metric, answers.gold, answers.predicted[i])
            assert cell is not None
            assert score.value is not None
            assert cell[0] < score.value < cell[1]
    for name, value in figures_of(stages, columns).items():
        interval = intervals.summary[name]
        if name in MAXIMA:
            assert interval is None, "the bootstrap of a maximum does not cover"
            assert intervals.cross_fitted[name] is not None
            continue
        assert interval is not None
        assert value is not None
        assert interval[0] <= value <= interval[1], name
    assert {"haque_forgetting.a", "haque_learning.b"} <= set(intervals.cross_fitted)
    written = json.loads(json.dumps(intervals.to_json(), allow_nan=False))
    assert set(written) == {"matrix", "summary", "cross_fitted", "level", "resamples"}
    assert written["matrix"][0][0] == list(intervals.matrix[0][0] or ())


def test_the_cells_alone_have_the_intervals_that_they_have_among_all() -> None:
    """Those of the first stages too, by which a run that is still going shows what it will end with."""
    stages, shares = sequence("ab"), [0.5, 0.9, 0.7]
    columns = {"a": column(1, shares, 60), "b": column(2, shares[::-1], 50, "matthews")}
    whole = bootstrap(stages, columns).matrix
    assert cell_intervals(stages, columns) == whole
    first = {task: Answers(one.metric, one.gold, one.predicted[:2]) for task, one in columns.items()}
    assert cell_intervals(stages[:2], first) == whole[:2]


def test_the_interval_of_an_accuracy_is_that_of_its_binomial() -> None:
    n, p = 2000, 0.8
    gold = np.ones(n, dtype=int)
    predicted = (np.arange(n) < p * n).astype(int)
    cell = bootstrap([MatrixRow("00-base")], {"a": Answers("accuracy", gold, [predicted])}).matrix[0][0]
    assert cell is not None
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    assert cell == pytest.approx((p - half, p + half), abs=0.1 * half)


def test_stages_are_resampled_jointly() -> None:
    # The same mistakes after both stages: each cell is unsure, their difference is not.
    stages, answers = sequence("ab"), column(3, [0.5, 0.8], 200)
    same = Answers(
        "accuracy", answers.gold, [answers.predicted[0], answers.predicted[1], answers.predicted[1]]
    )
    intervals = bootstrap(stages, {"a": same, "b": same})
    cell = intervals.matrix[1][0]
    assert cell is not None
    assert cell[1] - cell[0] > 0.05
    assert intervals.summary["backward_transfer"] == (0.0, 0.0)


def test_tasks_are_resampled_apart_and_by_their_name() -> None:
    stages, answers = sequence("ab"), column(4, [0.5, 0.7, 0.8], 100)
    both = replicates(stages, {"a": answers, "b": answers}).values
    assert not np.array_equal(both[:, :, 0], both[:, :, 1])
    turned = replicates(stages, {"b": answers, "a": answers}).values
    assert np.array_equal(turned[:, :, ::-1], both)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "spearman", "loss", "rouge_l"])
def test_the_same_answers_give_the_same_intervals_to_the_last_bit(metric: str) -> None:
    stages, n = sequence("ab"), 60
    generator = np.random.default_rng(5)

    def answers() -> Any:
        if metric == "loss":
            return np.stack([-10 * generator.random(n), generator.integers(1, 9, n)], axis=1)
        if metric == "rouge_l":
            return [" ".join(generator.choice(list("abcd"), 5)) for _ in range(n)]
        return generator.integers(0, 2, n)

    columns = {t: Answers(metric, answers(), [answers() for _ in stages]) for t in "ab"}
    again = {t: Answers(a.metric, list(a.gold), [list(p) for p in a.predicted]) for t, a in columns.items()}
    assert bootstrap(stages, columns) == bootstrap(stages, again)
    assert noise_floor(stages, columns) == noise_floor(stages, again)


def test_a_missing_stage_leaves_what_does_not_need_it() -> None:
    stages, answers = sequence("ab"), column(6, [0.5, 0.9, 0.8], 200)
    holed = Answers("accuracy", answers.gold, [None, *answers.predicted[1:]])
    columns = {"a": answers, "b": holed}
    intervals, floor = bootstrap(stages, columns), noise_floor(stages, columns)
    assert intervals.matrix[0][1] is None
    assert intervals.matrix[1][1] is not None
    assert intervals.summary["backward_transfer"] is not None
    assert intervals.summary["forward_transfer"] is None
    assert intervals.cross_fitted["haque_forgetting.b"] is None
    assert intervals.cross_fitted["haque_forgetting.a"] is not None
    assert floor["forgetting"] is not None
    assert floor["haque_forgetting_mean"] is None


def test_a_score_undefined_in_a_resample_has_no_interval() -> None:
    gold = np.arange(10.0)
    predicted = np.zeros(10)
    predicted[0] = 1.0  # a third of the resamples miss it, and are constant
    intervals = bootstrap([MatrixRow("00-base")], {"a": Answers("spearman", gold, [predicted])})
    assert intervals.matrix == [[None]]


def test_coverage_of_the_intervals() -> None:
    """95 % intervals of R and of BWT hold the truth in about 95 % of 300 samples."""
    stages, shares = sequence("ab"), [0.5, 0.85, 0.75]
    cells = transfers = 0
    for trial in range(300):
        columns = {task: column(1000 * trial + i, shares, 300) for i, task in enumerate("ab")}
        intervals = bootstrap(stages, columns, resamples=300, seed=trial)
        cell, transfer = intervals.matrix[1][0], intervals.summary["backward_transfer"]
        assert cell is not None
        assert transfer is not None
        cells += cell[0] <= 0.85 <= cell[1]
        transfers += transfer[0] <= -0.1 <= transfer[1]
    # A standard error of 1.3 points; percentile intervals run a little short.
    assert 0.91 <= cells / 300 <= 0.985
    assert 0.91 <= transfers / 300 <= 0.985


def test_the_floor_is_zero_where_all_stages_are_identical() -> None:
    stages, answers = sequence("abc"), column(7, [0.7], 100)
    same = Answers("accuracy", answers.gold, [answers.predicted[0]] * 4)
    assert noise_floor(stages, dict.fromkeys("abc", same)) == dict.fromkeys(MAXIMA, 0.0)


def test_the_floor_is_what_noise_alone_shows() -> None:
    """With answers that are coin flips after every stage, observed figures are the floor on average."""
    stages = sequence("abc")
    observed: dict[str, list[float]] = {name: [] for name in MAXIMA}
    floors: dict[str, list[float]] = {name: [] for name in MAXIMA}
    for trial in range(60):
        columns = {task: column(100 * trial + i, [0.7] * 4, 150) for i, task in enumerate("abc")}
        figures, floor = (
            figures_of(stages, columns),
            noise_floor(stages, columns, permutations=40, seed=trial),
        )
        for name in MAXIMA:
            value, expected = figures[name], floor[name]
            assert value is not None
            assert expected is not None
            observed[name].append(value)
            floors[name].append(expected)
    for name in MAXIMA:
        error = np.std(observed[name]) / len(observed[name]) ** 0.5
        assert abs(np.mean(observed[name]) - np.mean(floors[name])) < 3 * error, name
        assert np.mean(floors[name]) > 3 * error, name


def test_true_forgetting_stands_far_above_the_floor() -> None:
    stages = sequence("abc")
    shares = {"a": [0.5, 0.95, 0.8, 0.6], "b": [0.5, 0.5, 0.9, 0.7], "c": [0.5, 0.5, 0.5, 0.9]}
    columns = {task: column(i, shares[task], 500) for i, task in enumerate("abc")}
    figures, floor = figures_of(stages, columns), noise_floor(stages, columns)
    for name in ("forgetting", "haque_forgetting_mean", "haque_learning_mean"):
        value, expected = figures[name], floor[name]
        assert value is not None
        assert expected is not None
        assert value > 5 * expected > 0, name


def test_the_floor_of_forgetting_leaves_the_base_model_out() -> None:
    # Only the base model differs: forgetting sees no noise, Haque's figures do.
    stages, answers = sequence("ab"), column(10, [0.5, 0.8], 200)
    base, tuned = answers.predicted
    columns = dict.fromkeys("ab", Answers("accuracy", answers.gold, [base, tuned, tuned]))
    floor = noise_floor(stages, columns)
    assert floor["forgetting"] == 0.0
    assert floor["haque_learning_mean"] is not None
    assert floor["haque_learning_mean"] > 0.0


def test_four_tasks_of_ten_thousand_examples_take_seconds() -> None:
    stages = sequence("abcd")
    columns = {task: column(i, [0.5, 0.8, 0.8, 0.8, 0.8], 10_000) for i, task in enumerate("abcd")}
    started = time.process_time()
    assert len(bootstrap(stages, columns).cross_fitted) == len(MAXIMA) + 8
    assert time.process_time() - started < 10  # half a second on an idle core
