"""Fixtures of the tests of studies."""

import pytest

from forgetmenot.process import Job
from forgetmenot.studies.launch import Place
from tests.studies.in_process import Here, place_runs


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start runs in this process; gives the names of those that were."""
    names: list[str] = []

    def start(job: Job) -> Here:
        names.append(job.config.stem)
        return Here(job)

    place_runs(monkeypatch, Place(1, 1, start))
    return names
