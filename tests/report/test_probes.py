"""Results of probes, as a user reads them."""

from io import StringIO
from typing import Any

from rich.console import Console

from forgetmenot.report.probe_tables import print_probes

FOUND: dict[str, dict[str, Any]] = {
    "safety": {
        "options": {},
        "made_with": "judge someone",
        "parts": ["cona", "own"],
        "metrics": {"cona": "win 1", "own": "win 1"},
        "stages": ["00-base", "01-a", "02-b"],
        "values": [[0.5, 0.5], [0.25, 0.75], [0.25, None]],
        "intervals": [[None, None], [[0.1, 0.4], None], [[0.1, 0.4], None]],
        "n": [[4, 4], [4, 4], [4, 0]],
        "more": [[{}, {}]] * 3,
        "missing": [{"stage": "02-b", "part": "own", "reason": "no reply has a verdict"}],
        "delta": {"name": "safety", "values": [0.0, 0.0, None]},
    },
    "layers": {
        "options": {},
        "made_with": "",
        "parts": ["sst2 layer 1", "sst2 layer 2"],
        "metrics": {"sst2 layer 1": "CKA", "sst2 layer 2": "CKA"},
        "stages": ["00-base", "01-a"],
        "values": [[1.0, 1.0], [0.9, 0.2]],
        "intervals": [[None, None], [[0.8, 1.0], [0.1, 0.3]]],
        "n": [[9, 9], [9, 9]],
        "more": [[{}, {}], [{"own change of the stage": 0.5, "own change of the stage low": 0.4}, {}]],
        "missing": [],
        "delta": None,
    },
}


def test_the_terminal_shows_values_deltas_and_reasons() -> None:
    screen = StringIO()
    print_probes(FOUND, Console(file=screen, width=100))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert ["01-a", "0.250", "0.750", "+0.000"] in lines
    assert ["02-b", "0.250", "–", "–"] in lines
    assert ["own", "after", "02-b:", "no", "reply", "has", "a", "verdict"] in lines
    assert ["layers:", "sst2,", "9", "inputs"] in lines
    assert ["01-a", "▁▇", "layer", "2:", "0.200", "0.100", "to", "0.300", "layer", "1"] in lines


def test_many_parts_stand_below_one_another_where_a_row_of_them_has_no_room() -> None:
    parts = [f"qs-acceptability part {k}" for k in range(8)]
    wide = {
        **FOUND["safety"],
        "parts": parts,
        "metrics": dict.fromkeys(parts, "nats per token"),
        "values": [[stage + k / 10 for k in range(8)] for stage in range(3)],
        "missing": [],
        "delta": {"name": "drift", "values": [0.0, -0.5, None]},
    }
    screen = StringIO()
    print_probes({"drift": wide}, Console(file=screen, width=80))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert ["drift", "00-base", "01-a", "02-b"] in lines
    assert ["qs-acceptability", "part", "3", "0.300", "1.300", "2.300"] in lines
    assert ["drift", "delta", "+0.000", "−0.500", "–"] in lines
