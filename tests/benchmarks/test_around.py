"""Work around the model is watched by part, and what one part calls of another counts once."""

import pytest

from benchmarks import around


class Room:
    """Functions of which one calls the other; a clock stands still unless they move it."""

    now = 0.0

    def inner(self) -> str:
        Room.now += 2
        return "done"

    def outer(self) -> str:
        Room.now += 3
        return self.inner()


def test_what_a_part_calls_of_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(around, "PARTS", {"files": ((Room, ("outer",)),), "masks": ((Room, ("inner",)),)})
    monkeypatch.setattr("benchmarks.around.time.perf_counter", lambda: Room.now)
    with around.watched() as seconds:
        assert Room().outer() == "done"
        Room().inner()
    assert seconds == {"files": 5, "masks": 2}
    Room().inner()
    assert seconds == {"files": 5, "masks": 2}, "outside the block nothing is watched"


def test_every_part_is_where_it_is_said_to_be() -> None:
    places = [(holder, name) for parts in around.PARTS.values() for holder, names in parts for name in names]
    before = [getattr(holder, name) for holder, name in places]
    with around.watched():
        within = [getattr(holder, name) for holder, name in places]
    assert all(one is not other for one, other in zip(before, within, strict=True))
    assert [getattr(holder, name) for holder, name in places] == before
