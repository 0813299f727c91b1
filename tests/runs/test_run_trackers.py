"""What Accelerate's trackers are told."""

from collections.abc import Callable

import pytest

from forgetmenot.runs.api import Run

Go = Callable[..., Run]


def test_tensorboard_gets_every_step(go: Go, finished: Run) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra `trackers` is not installed",
    )
    run = go("one", {"trackers": ["tensorboard"]})
    assert run.results["matrix"] == finished.results["matrix"]
    (file,) = run.path.rglob("events.out.tfevents.*")
    told = accumulator.EventAccumulator(str(file.parent)).Reload()
    losses = told.Scalars("02-colour/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5]
    assert all(event.value > 0 for event in losses)
