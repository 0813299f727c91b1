"""Resident memory after each stage of a run, with what malloc frees given back to the system and kept.

    python -m benchmarks.stages --model MODEL [--examples 12] [--write]

Four made tasks of growing texts (MRPC's lengths and more), LoRA; each way in a process of its own.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import forgetmenot
from benchmarks.resident import resident
from benchmarks.scale import write_task
from benchmarks.table import Cells, machine, render, write
from forgetmenot.runs import loop, stage_training
from forgetmenot.runs.loop import Loop

STAGES = 4
COLUMNS: Cells = (
    *("machine", "model", "free memory", "base (MiB)"),
    *(f"stage {k} (MiB)" for k in range(1, STAGES + 1)),
)
WORDS = (
    "the",
    "company",
    "said",
    "profit",
    "rose",
    "twelve",
    "percent",
    "while",
    "shares",
    "fell",
    "on",
    "news",
)


def main() -> None:
    """Run both ways and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--examples", type=int, default=12, help="of each split of a task")
    parser.add_argument("--write", action="store_true", help="put each row into docs/performance.md")
    parser.add_argument("--here", choices=("given back", "kept"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(after_each_stage(given.model, given.examples, kept=given.here == "kept")))
        return
    rows = []
    for way in ("kept", "given back"):
        command = [sys.executable, "-m", "benchmarks.stages", "--model", given.model, "--here", way]
        command += ["--examples", str(given.examples)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        held = [f"{one:,.0f}" for one in json.loads(output.splitlines()[-1])]
        rows.append((machine(torch.device("cpu")), Path(given.model).name, way, *held))
        if given.write:
            write("stages", rows[-1], COLUMNS, key=3)
    print(render(rows, COLUMNS), end="")


def after_each_stage(model: str, examples: int, *, kept: bool) -> list[float]:
    """MiB after the base is scored and after each stage is trained and scored."""
    held: list[float] = []
    score = Loop._score

    def scored(*given: Any) -> float:
        seconds = score(*given)
        held.append(resident())
        return seconds

    with tempfile.TemporaryDirectory() as folder, patch.object(Loop, "_score", scored):
        os.environ["FORGETMENOT_CACHE"] = f"{folder}/cache"
        config = {"model": model, "tasks": write_tasks(Path(folder), examples), "checkpoints": "none"}
        config["output"] = f"{folder}/run"
        if not kept:
            forgetmenot.run(config)
            return held
        with patch.object(loop, "give_back", _nothing), patch.object(stage_training, "give_back", _nothing):
            forgetmenot.run(config)
    return held


def write_tasks(folder: Path, examples: int) -> list[str]:
    """Tasks whose texts have 20, 40, … words."""
    drawn, paths = random.Random(0), []
    for stage in range(1, STAGES + 1):
        texts = [" ".join(drawn.choices(WORDS, k=20 * stage)) for _ in range(examples)]
        paths.append(str(write_task(folder, f"task-{stage}", texts=texts)))
    return paths


def _nothing() -> None:
    """Give nothing back."""


if __name__ == "__main__":
    main()
