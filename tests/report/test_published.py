"""Published figures as data: the arithmetic that they obey, by our own formulas."""

from typing import Any

import numpy as np
import pytest

from forgetmenot.errors import UserError
from forgetmenot.metrics import MatrixRow, ScoreMatrix, ability_delta, average_performance, backward_transfer
from forgetmenot.report.published import known_published, load_published

HAQUE, QWEN = load_published("haque-2025").tables
TRACE, TRACE_500, ABILITY, *_ = load_published("trace").tables
WITH_SCORES = {f"{row['label']}": row for table in (TRACE, TRACE_500) for row in table.rows if "final" in row}


@pytest.mark.parametrize("name", known_published())
def test_every_file_says_where_it_is_from_and_has_its_columns_filled(name: str) -> None:
    published = load_published(name)
    assert published.source
    assert published.verified
    for table in published.tables:
        labels = [row["label"] for row in table.rows]
        assert len(set(labels)) == len(labels)
        for key in table.columns:
            assert any(isinstance(row.get(key), float) for row in table.rows)


def test_the_papers_thirteen_rows() -> None:
    assert len(HAQUE.rows) == 13
    by_label = {row["label"]: row for row in HAQUE.rows}
    assert by_label["Qwen2.5-7B"]["learning"] == 1.12
    assert min(HAQUE.rows, key=lambda row: row["forgetting"])["label"] == "Phi-3.5-mini"
    assert max(row["learning"] for row in HAQUE.rows) > 1  # so they are no means of accuracies' differences


def test_the_papers_rows_under_the_identity_of_sums() -> None:
    """mean R[T] = mean R[0] + (ΣL − ΣF)/4 is near the training performance of all but Qwen2.5-14B."""
    for row in [*HAQUE.rows, *QWEN.rows]:
        implied = row["pretrained"] + (row["learning"] - row["forgetting"]) / 4
        assert row["implied_final"] == pytest.approx(implied, abs=1e-5)
    off = {row["label"]: row["training"] - row["implied_final"] for row in HAQUE.rows}
    assert off.pop("Qwen2.5-14B") == pytest.approx(0.16, abs=0.005)
    assert max(map(abs, off.values())) <= 0.06
    assert max(map(abs, off.values())) > 0.05  # and is not equal to it
    stated = (0.522, 0.594, 0.623, 0.678, 0.643, 0.515, 0.602, 0.760, 0.796, 0.603, 0.713, 0.641, 0.785)
    assert [row["implied_final"] for row in HAQUE.rows] == pytest.approx(stated, abs=0.00101)


@pytest.mark.parametrize("label", WITH_SCORES)
def test_traces_op_and_bwt_follow_from_the_scores_of_its_tasks(label: str) -> None:
    row: Any = WITH_SCORES[label]
    values = np.random.default_rng(0).random((9, 8))  # OP and BWT read no other cells
    values[np.arange(1, 9), np.arange(8)] = row["diagonal"]
    values[8] = row["final"]
    tasks = tuple("abcdefgh")
    stages = (MatrixRow("00-base"), *(MatrixRow(task, (task,)) for task in tasks))
    matrix = ScoreMatrix(tasks, stages, values)
    assert float(average_performance(matrix)) == pytest.approx(row["op"], abs=0.0015)
    assert float(backward_transfer(matrix)) == pytest.approx(row["bwt"], abs=0.0015)


def test_the_mean_of_three_orders_is_the_printed_one() -> None:
    large, _ = load_published("standard-cl").tables
    with_orders: list[Any] = [row for row in large.rows if "order_1" in row]
    assert len(with_orders) == 5
    for row in with_orders:
        assert row["op"] == pytest.approx(np.mean([row[f"order_{k}"] for k in (1, 2, 3)]), abs=0.0006)


def test_no_method_of_a_paper_passes_the_bound_it_prints_but_replay_of_its_own_text() -> None:
    """Misread figures would."""
    for name in ("forever-2026", "standard-cl", "slao-2025"):
        for table in load_published(name).tables:
            rows: list[Any] = list(table.rows)
            bound = [row["op"] for row in rows if row["label"] == "multi-task"]
            above = [row["label"] for row in rows if bound and row["op"] > bound[0]]
            assert above == (["SAPT (replay of text of its own)"] if name == "slao-2025" else [])
            assert all(row["bwt"] < 0 for row in rows if "bwt" in row)


def test_traces_general_ability_delta() -> None:
    before, *after = [
        {name: row[name] for name in ABILITY.columns if name != "delta"} for row in ABILITY.rows
    ]
    for parts, row in zip(after, ABILITY.rows[1:], strict=True):
        assert ability_delta(before, parts) == pytest.approx(row["delta"], abs=0.009)  # Replay's is off
    with pytest.raises(ValueError, match="Parts differ"):
        ability_delta(before, {"mmlu": 1.0})


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'haque-2025'\? Known: forever-2026, .* trace"):
        load_published("haque-2024")
