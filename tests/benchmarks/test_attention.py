"""The benchmark of attention runs, and each side's numbers are right."""

import pytest

from benchmarks import attention
from forgetmenot.engine.chunked import CHUNK


@pytest.mark.parametrize("dtype", attention.DTYPES)
def test_both_sides_are_timed_and_held_against_fp64(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "POSITIONS", 2 * CHUNK)
    cells = dict(zip(attention.COLUMNS, attention.measure(dtype, 12, 2), strict=True))
    assert (cells["dtype"], cells["keys"]) == (dtype, "12")
    most = {"fp32": 2e-6, "bf16": 1e-2}[dtype]
    assert 0 < float(cells["error"]) < most
    assert 0 < float(cells["the kernel's"]) < most
    assert float(cells["training (ms)"]) > 0
