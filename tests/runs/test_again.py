"""When the base is asked again: which answers count as others."""

import pytest

from forgetmenot.runs.again import _differ


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("2.31", "2.3100001", False),
        ("2.31", "2.32", True),
        ("0.0", "-1e-07", False),
        ("yes", "yes", False),
        ("yes", "no", True),
        ("nan", "nan", False),
        (None, None, False),
        (None, "yes", True),
    ],
)
def test_rounding_of_a_number_is_no_other_answer(one: str | None, other: str | None, differ: bool) -> None:
    assert _differ(one, other) == differ
