"""Every method runs by its name alone, with nothing but defaults, and says what it keeps."""

from collections.abc import Callable

import pytest

from forgetmenot.methods import METHODS
from forgetmenot.runs.api import Run
from tests.written import ROOMY

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 4, "training.limit": 8}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_needs_nothing_but_its_name(go: Go, method: str) -> None:
    run = go("run", {**SMALL, "method": method, **ROOMY.get(method, {})})
    assert not run.matrix.isna().any(axis=None)
    assert run.results["cost"]["past_data"] == METHODS[method].past_data
    kept = list(run.results["cost"]["memory_kept"].values())
    said_nothing = METHODS[method].keeps.startswith("nothing")
    assert not (said_nothing and kept[-1] > 0)
