"""The data of the composition and its three tests, as task files that `fmn run` reads.

The bridge learns on a fifth of the keys: substitution alone, as in the paper, or with the value behind it.
The composed model is tested on the other keys: can it substitute, can it still reckon, and can it do both?
Of an expression of keys it writes the substitution, `=`, and the value; all of that must be right.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from forgetmenot.record.files import write_text
from forgetmenot.tasks.yaml_file import write_yaml
from scripts.key_value.models import ASKED, EQUALS
from scripts.key_value.world import Expression, World, distinct, expressions

TO_COMPOSE, TESTED = 20_000, 500

OF_KEYS, OF_NUMBERS = {"template": "{{ keys }}" + ASKED}, {"template": "{{ numbers }}" + EQUALS}
ANSWER_TOKENS = 16

LEARNED: dict[str, dict[str, Any]] = {
    "learn-substitution": {"target": "substitution", "eos": False},
    "learn-arithmetic": {"target": "worked", "eos": True},
}
"""What the bridge learns. The first is the paper's; it has no end, since the anchor is to go on there."""

TESTS: dict[str, dict[str, Any]] = {
    "substitution": {"prompt": OF_KEYS, "target": "numbers", "stop": [EQUALS]},
    "numeric": {"prompt": OF_NUMBERS, "target": "value", "stop": []},
    "arithmetic": {"prompt": OF_KEYS, "target": "worked", "stop": []},
}
"""In the order of the paper's table 1: KV-Substitution, Numeric-Arithmetic, KV-Arithmetic."""


def write_tasks(world: World, folder: Path, seed: int) -> None:
    """Write a task file for each way to learn and for each test, with their rows beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(f"{seed} tasks")
    _write_rows(folder / "compose.jsonl", distinct(expressions(world, world.to_compose, rng), TO_COMPOSE))
    _write_rows(folder / "test.jsonl", distinct(expressions(world, world.held_out, rng), TESTED))
    for name, learned in LEARNED.items():
        task = {
            "name": name,
            "data": {"train": "compose.jsonl"},
            "target": learned["target"],
            "prompts": {"default": {**OF_KEYS, "separator": "", "eos": learned["eos"]}},
        }
        write_text(folder / f"{name}.yaml", write_yaml(task))
    for name, test in TESTS.items():
        task = {
            "name": name,
            "data": {"score": "test.jsonl"},
            "target": test["target"],
            "prompts": {"default": {**test["prompt"], "separator": ""}},
            "generation": {"max_new_tokens": ANSWER_TOKENS, "stop": test["stop"]},
        }
        write_text(folder / f"{name}.yaml", write_yaml(task))


def _write_rows(path: Path, rows: Iterable[Expression]) -> None:
    lines = [
        json.dumps(
            {
                "keys": row.keys,
                "numbers": row.numbers,
                "substitution": row.numbers + EQUALS,
                "value": row.value,
                "worked": row.numbers + EQUALS + row.value,
            }
        )
        for row in rows
    ]
    write_text(path, "\n".join(lines) + "\n")
