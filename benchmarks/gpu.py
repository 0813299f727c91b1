"""Everything that is measured on a GPU, by one command in ten minutes.

    python -m benchmarks.gpu                                # on one H100 or H200; writes gpu.json
    python -m benchmarks.gpu --device cpu --sizes tiny      # a dry run

Random weights of published dimensions are drawn on the device, and prompts come from the bundled tasks, so
that nothing is downloaded. For each size: whether the attention kernel is exact, against the dense mask and
before anything is timed; then scoring against lm-eval and training against TRL, where these are installed;
then a whole run by `forgetmenot.run`, whose rates say how long the paper's sequence takes. Every part has its
share of the time. Where one fails or comes to its end, that is written, and the next begins.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.gpu_parts import Subject, product
from benchmarks.gpu_settings import GpuSettings, read_settings
from benchmarks.table import Cells, machine, render, write
from forgetmenot.engine.guard import REFUSALS
from forgetmenot.errors import UserError

DOCUMENT = Path(__file__).parents[1] / "docs" / "gpu.md"
COLUMNS: Cells = (
    "machine",
    "dimensions",
    "work",
    "ours (examples/s)",
    "peer (examples/s)",
    "time ×",
    "positions ×",
    "MFU",
    "memory (GiB)",
    "peer's memory (GiB)",
    "remarks",
)
KEY = 3
"""So many first cells say which row it is."""
FAILURES = (*REFUSALS, UserError, OSError, ImportError, AssertionError, ArithmeticError)
"""What may go wrong in a part without an end to the others; a part's time that is over is an OSError too."""
Parts = dict[str, Any]
"""What each part of a size has found."""


def main() -> None:
    """Measure, write the JSON after each part, and print the rows."""
    settings = read_settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=settings.sizes, default=["0.5b", "7b"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.5, help="the most that all of it may take")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--write", action="store_true", help="put the rows into docs/gpu.md")
    given = parser.parse_args()
    if (given.device == "cuda") != torch.cuda.is_available():
        print(f"gpu: --device {given.device}: this is not what the machine runs on.", file=sys.stderr)
        sys.exit(2)
    found = measure(settings, given.sizes, torch.device(given.device), given.minutes * 60, given.output)
    rows = [
        row for name, parts in found["sizes"].items() for row in table_rows(found["machine"], name, parts)
    ]
    print(render(rows, COLUMNS), end="")
    if given.write:
        for row in rows:
            write("gpu", row, COLUMNS, DOCUMENT, KEY)
    failed = [
        f"{name}: {part}" for name, parts in found["sizes"].items() for part in parts if _why(parts, part)
    ]
    if failed:
        print(f"gpu: not measured: {', '.join(failed)}; {given.output} says why.", file=sys.stderr)
        sys.exit(1)


def measure(
    settings: GpuSettings, sizes: list[str], device: torch.device, seconds: float, output: Path
) -> dict[str, Any]:
    """Measure every part of every size within a time; what is found is written after each part."""
    began = time.monotonic()
    found: dict[str, Any] = {
        "machine": machine(device),
        "versions": {name: version(name) for name in ("forgetmenot", "torch", "transformers", "peft")},
        "product_rate": product(device),
        "sizes": {name: {} for name in sizes},
    }
    left = [(name, part) for name in sizes for part in settings.shares]
    with tempfile.TemporaryDirectory() as folder:
        for name in sizes:
            subject = Subject(settings, name, device, Path(folder) / name, found["product_rate"])
            parts: Parts = found["sizes"][name]
            for part in settings.shares:
                shares = sum(settings.shares[one] for _, one in left)
                limit = (began + seconds - time.monotonic()) * settings.shares[part] / shares
                left.remove((name, part))
                parts[part] = attempt(getattr(subject, part), limit)
                print(f"{name}: {part}: {json.dumps(parts[part])}", file=sys.stderr)
                output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                if part == "build" and _why(parts, part):
                    left = [one for one in left if one[0] != name]
                    break
            subject.forget()
    found["seconds"] = time.monotonic() - began
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def attempt(part: Callable[[dict[str, Any], float], None], limit: float) -> dict[str, Any]:
    """What a part finds within so many seconds; where it does not come to its end, also why."""
    began = time.monotonic()
    found: dict[str, Any] = {}
    try:
        with within(limit):
            part(found, limit)
    except FAILURES as error:
        text = f"{type(error).__name__}: {error}"
        found |= {"failed": text, "where": traceback.format_exc().splitlines()[-12:]}
    return found | {"took": time.monotonic() - began}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End a block that takes longer, with a `TimeoutError`, as soon as Python runs again."""

    def over(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"its {seconds:.0f} seconds were over")

    if seconds <= 0:
        raise TimeoutError("no time was left")
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table_rows(machine: str, name: str, parts: Parts) -> list[Cells]:
    """The rows of a size, as text in the order of COLUMNS."""
    rows = []
    for work in ("scoring", "training", "whole_run"):
        cells = dict.fromkeys(COLUMNS, "")
        cells |= {"machine": machine, "dimensions": name, "work": work.replace("_", " ")}
        done = parts.get(work, {"failed": "the model could not be built"})
        if "ours" in done or "train_rate" in done:
            cells |= _cells(work, done)
        if why := done.get("failed"):
            cells["remarks"] = f"not all measured: {why.splitlines()[0].replace('|', '/')}"
        if work == "scoring" and (said := parts.get("exactness", {}).get("said")):
            cells["remarks"] = "; ".join(one for one in (said, cells["remarks"]) if one)
        rows.append(tuple(cells.values()))
    return rows


def _cells(work: str, done: Mapping[str, Any]) -> dict[str, str]:
    if work == "whole_run":
        return {
            "ours (examples/s)": f"{done['train_rate']:.0f} trained, {done['score_rate']:.0f} scored",
            "remarks": f"the paper's sequence: {done['paper_minutes']:.0f} min",
        }
    ours, peer = done["ours"], done.get("peer", {"skipped": ""})
    cells = {
        "ours (examples/s)": f"{ours['rate']:.0f}",
        "MFU": f"{ours['mfu']:.0%}",
        "memory (GiB)": f"{ours['gib']:.1f}",
    }
    if "skipped" in peer:
        return cells | {"remarks": peer["skipped"]}
    return cells | {
        "peer (examples/s)": f"{peer['rate']:.0f}",
        "time ×": f"**{ours['rate'] / peer['rate']:.1f}**",
        "positions ×": f"{peer['positions'] / ours['positions']:.1f}",
        "peer's memory (GiB)": f"{peer['gib']:.1f}",
        "remarks": f"{peer['agreement']}; {peer['flags']}",
    }


def _why(parts: Parts, part: str) -> str | None:
    why: str | None = parts.get(part, {}).get("failed")
    return why


if __name__ == "__main__":
    main()
