"""Predictions on disk: what is written is read back, and every metric can be computed from it alone."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetmenot.errors import UserError
from forgetmenot.metrics import METRICS, MatrixRow, measure, metric_named
from forgetmenot.record.predictions import (
    Predictions,
    as_measured,
    read_predictions,
    score,
    write_predictions,
)
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.runs import read_run
from forgetmenot.report.comparison.weighted import END, LOST
from tests.record.written_runs import asked, write_results

ROWS = [MatrixRow("00-base"), MatrixRow("01-a", ("a",)), MatrixRow("02-b", ("b",))]
WORDS = ("the cat sat", "a dog ran far", "no one came", "it rained all day", "she sang")


def answers_for(metric: str, seed: int, n: int = 40) -> Predictions:
    """Drawn answers of the kind that a metric reads, some right and some wrong."""
    draw = np.random.default_rng(seed)
    gold_of = np.random.default_rng(1)
    ids = [f"score-{k}" for k in range(n)]
    reads = metric_named(metric).reads
    if reads == "labels":
        labels = ("yes", "no")  # not in the order of the alphabet: f1's positive label is the second
        gold, said = gold_of.integers(0, 2, n), draw.integers(0, 2, n)
        return Predictions(
            ids, [labels[k] for k in gold], [labels[k] for k in said], [[-1.0, -2.0]] * n, labels=labels
        )
    if reads == "numbers":
        gold_numbers, numbers = gold_of.normal(size=n), draw.normal(size=n)
        return Predictions(ids, [*map(repr, gold_numbers.tolist())], [*map(repr, numbers.tolist())])
    if reads == "likelihoods":
        sums = (-draw.uniform(1, 9, n)).tolist()
        return Predictions(ids, ["text"] * n, [None] * n, [[one] for one in sums], [7] * n)
    gold_texts, texts, sources = (
        [WORDS[k] for k in generator.integers(0, len(WORDS), n)] for generator in (gold_of, draw, gold_of)
    )
    return Predictions(ids, gold_texts, [*texts], source=[*sources] if reads == "rewrites" else [])


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_computed_from_the_file_alone(metric: str, tmp_path: Path) -> None:
    before = answers_for(metric, 0)
    write_predictions(tmp_path / "predictions.parquet", {"a": before})
    after = read_predictions(tmp_path / "predictions.parquet")["a"]
    assert after == replace(before, labels=after.labels)
    assert score(metric, after) == score(metric, before) == measure(metric, *as_measured(metric, before))
    assert score(metric, after).value is not None


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_paired_in_a_comparison(metric: str, tmp_path: Path) -> None:
    """One column of sari, preference or f1 once left all runs of a comparison without a test."""
    runs = []
    for number, model in enumerate(("alpha", "beta")):
        tasks = [
            asked(task, [metric], [answers_for(metric, 10 * number + 3 * k + i) for i in range(3)])
            for k, task in enumerate(("a", "b"))
        ]
        write_results(tmp_path / model, ROWS, tasks, described={"model": model})
        runs.append(read_run(tmp_path / model, {"model": model}))
    assert [run.unpaired for run in runs] == [None, None]
    comparison = Comparison("mine", runs)
    for figure in (END, LOST):
        test = comparison.test("alpha", "beta", figure)
        assert test.reason is None
        assert test.contrast is not None


def test_the_label_order_is_the_tasks_and_not_the_alphabets(tmp_path: Path) -> None:
    """F1 with the other label as the positive one is another number."""
    path = tmp_path / "predictions.parquet"
    one = Predictions(["0", "1", "2"], ["yes", "no", "no"], ["yes", "yes", "no"], labels=("yes", "no"))
    write_predictions(path, {"a": one, "b": replace(one, labels=("no", "yes"))})
    there = read_predictions(path)
    assert there["a"].labels == ("yes", "no")
    assert score("f1", there["a"]).value == pytest.approx(2 / 3)  # of "no": precision 1, recall 1/2
    assert score("f1", there["b"]).value == pytest.approx(2 / 3)  # of "yes": precision 1/2, recall 1
    assert as_measured("f1", there["a"])[0].tolist() == [0, 1, 1]
    assert as_measured("f1", there["b"])[0].tolist() == [1, 0, 0]


def test_further_tasks_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    first, second = answers_for("f1", 0), answers_for("rouge_l", 1)
    write_predictions(path, {"a": first})
    write_predictions(path, {"b": second})
    there = read_predictions(path)
    assert list(there) == ["a", "b"]
    assert there["a"] == first
    assert score("rouge_l", there["b"]) == score("rouge_l", second)


def test_a_file_of_an_earlier_version_is_read_and_says_what_it_lacks(tmp_path: Path) -> None:
    """Its metadata has no labels, and it has no column of sources."""
    path = tmp_path / "predictions.parquet"
    write_predictions(path, {"a": answers_for("accuracy", 0)})
    parquet.write_table(parquet.read_table(path).drop_columns(["source"]).replace_schema_metadata(None), path)
    there = read_predictions(path)["a"]
    assert there.labels is None
    assert there.right("accuracy") == answers_for("accuracy", 0).right("accuracy")
    with pytest.raises(UserError, match=r"order of the labels.*--fresh"):
        as_measured("accuracy", there)


text = st.text(max_size=8)
maybe = st.none() | text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            text,
            text,
            maybe,
            st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
            st.none() | st.integers(0, 2**40),
            maybe,
            st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
            maybe,
            maybe,
        ),
        min_size=1,
        max_size=5,
    ),
    labels=st.lists(text, max_size=4, unique=True),
)
def test_whatever_is_written_is_read_back(
    rows: Sequence[tuple[Any, ...]], labels: list[str], tmp_path: Path
) -> None:
    names = [field.name for field in fields(Predictions)][:9]
    columns: dict[str, Any] = {
        name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    one = Predictions(**columns, labels=tuple(labels))
    path = tmp_path / "predictions.parquet"
    path.unlink(missing_ok=True)
    write_predictions(path, {"ein Täsk": one})
    there = read_predictions(path)["ein Täsk"]
    assert all(getattr(there, field.name) == getattr(one, field.name) for field in fields(one))
