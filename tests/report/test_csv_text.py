"""CSV without pandas, against pandas: the same bytes."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.report.comparison.study_tables import study_csv, study_table
from forgetmenot.report.csv_text import csv_text
from tests.report.test_study import STUDY

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
)
COLUMNS = st.one_of(*(st.lists(kind, min_size=3, max_size=3) for kind in (
    CELLS, st.integers(-9, 9), st.floats(), st.none() | st.integers(-9, 9), st.none() | st.floats(),
    st.none() | st.text(), st.none() | st.booleans(),
)))  # fmt: skip


@given(st.lists(COLUMNS, min_size=1, max_size=4))
def test_any_columns_are_written_as_pandas_writes_them(columns: list[list[Any]]) -> None:
    rows = [dict(zip("abcd", row, strict=False)) for row in zip(*columns, strict=True)]
    safe = [{key: no_formula(value) for key, value in row.items()} for row in rows]
    assert csv_text(rows) == pd.DataFrame(safe).to_csv(index=False)


def no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def test_a_text_that_a_spreadsheet_would_compute_is_text() -> None:
    rows = [{"model": '=HYPERLINK("http://h")', "loss": -1.5}, {"model": "@sum", "loss": 2}]
    assert csv_text(rows) == 'model,loss\n"\'=HYPERLINK(""http://h"")",-1.5\n\'@sum,2.0\n'


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"a": 1, "b": 2}, {"b": 3, "c": "x"}],  # a key that some rows lack
        [{"a": None}, {"a": ""}],
        [{"a": 'say "x, y"\nz', "b": 1e-20, "c": 1e16}],
    ],
)
def test_what_rows_lack_and_what_must_be_quoted_too(rows: list[dict[str, Any]]) -> None:
    assert csv_text(rows) == pd.DataFrame(rows).to_csv(index=False)


def test_a_study_has_its_table() -> None:
    assert study_csv(STUDY) == study_table(STUDY).to_csv(index=False)
