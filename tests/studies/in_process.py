"""Runs of a study in the test's own process, which spares the seconds that torch takes to import."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import forgetmenot
from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.process import Job
from forgetmenot.studies import study as study_module
from forgetmenot.studies.config import Resources
from forgetmenot.studies.launch import Place


class Here:
    """A run that has ended when it has been started."""

    def __init__(self, job: Job) -> None:
        self._returned = 0
        try:
            forgetmenot.run(load_config(job.config))
        except UserError as error:
            job.log.write_text(f"forgetmenot: {error}\n", encoding="utf-8")
            self._returned = 2

    def poll(self) -> int:
        return self._returned

    def terminate(self) -> None:
        raise AssertionError("it has ended")

    farewell = terminate


def place_runs(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """Have studies start their runs at a place."""

    @contextmanager
    def here(resources: Resources, workers: int) -> Iterator[Place]:
        yield place

    monkeypatch.setattr(study_module, "this_machine", here)
