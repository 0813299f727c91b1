"""Probes by name: ours, and those of other packages."""

from types import SimpleNamespace
from typing import Any

import pytest

import forgetmenot.probes as rooms
from forgetmenot.errors import UserError
from forgetmenot.probes import PROBES, Probe, check_probe, known_probes


class TheirsProbe(Probe):
    """A probe of another package."""


def test_others_plug_in_by_entry_point_and_never_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(group: str) -> list[Any]:
        assert group == "forgetmenot.probes"
        return [SimpleNamespace(name=name, load=lambda: TheirsProbe) for name in ("theirs", "safety")]

    monkeypatch.setattr(rooms, "entry_points", found)
    assert known_probes() == {"theirs": TheirsProbe, **PROBES}
    assert check_probe("theirs", {})[0] is TheirsProbe
    with pytest.raises(UserError, match="Did you mean 'theirs'"):
        check_probe("their", {})


def test_every_probe_says_in_one_line_what_it_measures() -> None:
    for kind in PROBES.values():
        assert len((kind.__doc__ or "").strip().splitlines()[0]) > 20
