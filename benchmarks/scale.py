"""Large inputs: how long they take, and how much memory.

    python -m benchmarks.scale [--rows tasks row …] [--write]

Each row is computed in a process of its own, by a random model of one layer of width 16, so that what is
measured is the work around the model; the process with its imports holds 440 MiB before it begins.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import forgetmenot
from benchmarks.table import Cells, machine, render, write
from forgetmenot.record.layout import RESULTS
from forgetmenot.record.seal import write_sealed
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.studies.study import study

COLUMNS: Cells = ("machine", "input", "work", "seconds", "peak memory (MiB)", "page (MB)")
MEGABYTE = 10**6


def main() -> None:
    """Measure the rows that are asked for, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--write", action="store_true", help="put each row into docs/performance.md")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(_measured(CASES[given.rows[0]][2])))
        return
    rows = []
    for name in given.rows:
        said, work, _ = CASES[name]
        command = [sys.executable, "-m", "benchmarks.scale", "--here", "--rows", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, peak, page = json.loads(output.splitlines()[-1])
        shown = f"{page:.2f}" if page is not None else ""
        rows.append((machine(torch.device("cpu")), said, work, f"{seconds:.1f}", f"{peak:,.0f}", shown))
        if given.write:
            write("scale", rows[-1], COLUMNS, key=3)
    print(render(rows, COLUMNS), end="")


def _measured(work: Callable[[Path], Path | None]) -> tuple[float, float, float | None]:
    """Seconds of the processor, peak resident MiB, and MB of the page that a piece of work writes."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORGETMENOT_CACHE"] = f"{folder}/cache"  # an empty one
        began = time.process_time()
        page = work(Path(folder))
        seconds = time.process_time() - began
        size = page.stat().st_size / MEGABYTE if page is not None else None
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size


def _tasks(count: int, folder: Path) -> dict[str, Any]:
    """A run over so many tasks of 8 examples to learn and 8 to score."""
    return _config(folder, [write_task(folder, f"task-{k:04}") for k in range(count)])


def _preview(count: int, folder: Path) -> None:
    forgetmenot.preview(_tasks(count, folder))


def _run(config: dict[str, Any]) -> Path:
    return forgetmenot.run(config).path / "report.html"


def _large_row(folder: Path) -> Path:
    text = "a word of many " * (20 * MEGABYTE // 15)
    return _run(_config(folder, [write_task(folder, "large", first=text)]))


def _study(count: int, folder: Path) -> Path:
    """A study of so many seeds, of which one is trained and the others are copies with its numbers."""
    once = {"base": _config(folder, [write_task(folder, "a"), write_task(folder, "b")])}
    once["base"].pop("output")
    told = {**once, "output": str(folder / "study"), "grid": {"seed": list(range(count))}}
    config = load_study(told)
    RunDirectory(config.directory).write_text("study.yaml", config.to_yaml())
    first, *others = expand_study(config)
    finished = forgetmenot.run(first.config).path
    results = json.loads((finished / RESULTS).read_text())
    for one in others:
        shutil.copytree(finished, one.config.directory)
        directory = RunDirectory(one.config.directory)
        directory.write_text("config.yaml", one.config.to_yaml())
        write_sealed(directory.path / RESULTS, json.dumps({**results, "seed": one.config.seed}))
    study(config)
    return folder / "study" / "report.html"


def write_task(
    folder: Path,
    name: str,
    *,
    score: int = 8,
    labels: int = 2,
    first: str | None = None,
    texts: Sequence[str] = (),
) -> Path:
    """Write a task's YAML with its rows beside it.

    Args:
        folder: Where to.
        name: The task's.
        score: How many rows are scored.
        labels: How many there are.
        first: The text of the first row of each split.
        texts: Those of all rows of either split, in place of short ones.
    """
    kinds = [f"kind-{k}" for k in range(labels)]
    for split, count in (("train", 8), ("score", score)):
        with (folder / f"{name}-{split}.jsonl").open("w") as lines:
            for k, text in enumerate(texts or (f"{name} {split} word {k}" for k in range(count))):
                said = first if first is not None and k == 0 else text
                lines.write(json.dumps({"text": said, "kind": kinds[k % labels]}) + "\n")
    prompt = {"template": "Word: {{ text }}\nKind:", "choices": {k: k for k in kinds}, "end": "\n"}
    file = {
        "name": name,
        "data": {"train": f"{name}-train.jsonl", "score": f"{name}-score.jsonl"},
        "label": "kind",
        "prompts": {"default": prompt},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(file))  # JSON is YAML
    return path


def _config(folder: Path, tasks: Sequence[Path], **further: Any) -> dict[str, Any]:
    """A run of tasks with a small random model."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    bundled = Path(forgetmenot.__file__).parent / "models" / "quickstart" / "small"
    tokenizer, model = AutoTokenizer.from_pretrained(bundled), folder / "model"
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(model)
    tokenizer.save_pretrained(model)
    names = [str(path) for path in tasks]
    return {"model": str(model), "tasks": names, "output": str(folder / "run"), **further}


CASES: dict[str, tuple[str, str, Callable[[Path], Path | None]]] = {
    "preview": ("1,000 tasks in sequence", "preview", lambda folder: _preview(1000, folder)),
    "tasks": ("1,000 tasks, joint", "run", lambda folder: _run({**_tasks(1000, folder), "method": "joint"})),
    "sequence": ("60 tasks in sequence", "run", lambda folder: _run(_tasks(60, folder))),
    "scored": (
        "200,000 scored rows",
        "run",
        lambda folder: _run(_config(folder, [write_task(folder, "many", score=200_000)])),
    ),
    "row": ("a row of 20 MB", "run", _large_row),
    "labels": (
        "3,000 labels",
        "run",
        lambda folder: _run(_config(folder, [write_task(folder, "labels", score=32, labels=3000)])),
    ),
    "study": ("a study of 1,000 runs", "table, page, study.json", lambda folder: _study(1000, folder)),
}


if __name__ == "__main__":
    main()
