"""The growing sequence of tasks is what its benchmark says it is, and every row of its matrix is watched."""

from pathlib import Path

from benchmarks.growth import ScoredRow, score_matrix, write_tasks
from forgetmenot.tasks import load_tasks


def test_a_task_is_cut_into_tasks_that_share_nothing(tiny_tasks: dict[str, Path], tmp_path: Path) -> None:
    [whole] = load_tasks([str(tiny_tasks["animal"])], None)
    paths = write_tasks(whole, 3, train=4, score=2, folder=tmp_path)
    parts = load_tasks([str(path) for path in paths], None)
    assert [part.labels for part in parts] == [whole.labels] * 3
    assert [len(part.score) for part in parts] == [2, 2, 2]
    cut = [
        (one.fields["word"], one.label) for part in parts for one in (*part.train, *part.select, *part.score)
    ]
    assert sorted(cut) == sorted((one.fields["word"], one.label) for one in whole.train[:18])


def test_every_row_is_watched(tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path) -> None:
    [whole] = load_tasks([str(tiny_tasks["animal"])], None)
    paths = write_tasks(whole, 2, train=4, score=3, folder=tmp_path)
    rows = score_matrix(str(tiny_llama), paths, tmp_path / "run")
    assert [row.cells for row in rows] == [2, 2, 2]
    for row in rows:
        assert 0 < row.model < row.seconds
        assert 0 < row.host < 1


def test_a_cell_is_a_rows_share() -> None:
    row = ScoredRow(cells=4, seconds=2.0, model=1.9)
    assert row.per_cell == 500
    assert abs(row.host - 0.05) < 1e-12
