"""A comparison of the results of two runs or studies, value by value, whatever version wrote them.

    python -m scripts.same_results BEFORE AFTER

Compares every results.json and predictions*.parquet (and study.json) under BEFORE with the file of the same
place under AFTER. Keys and columns that AFTER alone has are listed and are no difference; numbers may differ
by one part in 10¹² (the same formula by another library). Exit status 1 where anything else differs.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

TOLERANCE = 1e-12


def differences(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Where two values differ: ("added" or "differs", the place with both values)."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in after.keys() - before.keys():
            yield "added", f"{place}.{key}"
        for key, value in before.items():
            if key == "conclusions":
                continue
            if key not in after:
                yield "differs", f"{place}.{key} is gone"
            else:
                yield from differences(value, after[key], f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for k, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{place}[{k}]")
    elif isinstance(before, float) and isinstance(after, float):
        if not math.isclose(before, after, rel_tol=TOLERANCE, abs_tol=1e-300):
            yield "differs", f"{place}: {before!r} → {after!r}"
    elif before != after:
        yield "differs", f"{place}: {str(before)[:80]!r} → {str(after)[:80]!r}"


def files(folder: Path) -> Iterator[Path]:
    """The files whose content two equal runs share."""
    for pattern in ("**/results.json", "**/study.json", "**/predictions*.parquet"):
        yield from sorted(folder.glob(pattern))


def content(path: Path) -> Any:
    """A file as plain data; of a table its columns."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pydict()
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Compare, print, and exit with 1 where something differs."""
    before, after = (Path(one) for one in sys.argv[1:3])
    compared = values = 0
    added, wrong = set[str](), list[str]()
    for path in files(before):
        other = after / path.relative_to(before)
        if not other.is_file():
            wrong.append(f"{other} is missing")
            continue
        compared += 1
        values += path.stat().st_size
        for kind, place in differences(content(path), content(other)):
            (added.add if kind == "added" else wrong.append)(f"{path.name}{place}")
    print(f"{compared} files ({values:,} bytes) compared, {len(wrong)} differences.")
    for line in sorted(added):
        print(f"added: {line}")
    for line in wrong[:20]:
        print(f"differs: {line}")
    sys.exit(1 if wrong or not compared else 0)


if __name__ == "__main__":
    main()
