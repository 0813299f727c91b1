"""Measure real models on public benchmarks, and write docs/published.md.

    python -m scripts.published_numbers --models MODELS --data-dir DATA --results FOLDER [--rows TEXT...]

MODELS holds a folder for each model of `rows.yaml`, DATA the benchmarks' files (docs/probes.md). Each row
takes four measurements: its value, our answers in fp32, and the answers of lm-eval's own model in fp32 and in
fp64. Each is a file in FOLDER as soon as it is finished, and what is there is not measured again. The page is
written anew from FOLDER each time.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers import quiet
from forgetmenot.errors import UserError
from scripts.published_numbers.measure import (
    Measured,
    our_answers,
    their_answers,
    their_exact_answers,
    value,
)
from scripts.published_numbers.page import PAGE, page
from scripts.published_numbers.rows import PATH, Row, read_rows

MEASUREMENTS: dict[str, Callable[[Row, Path, Path], Measured]] = {
    "value": value,
    "ours-fp32": our_answers,
    "hflm-fp32": their_answers,
    "hflm-fp64": their_exact_answers,
}


def main(arguments: Sequence[str] | None = None, listed: Path = PATH, document: Path = PAGE) -> None:
    """Measure what is missing, and write the page.

    Args:
        arguments: Of the command.
        listed: The file of rows.
        document: The page.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", help="only rows whose name has one of these in it")
    parser.add_argument("--only", nargs="*", choices=MEASUREMENTS, help="only these measurements")
    given = parser.parse_args(arguments)
    rows = read_rows(listed)
    quiet()
    given.results.mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows.rows if given.rows is None or any(text in row.name for text in given.rows)]
    for row in wanted:
        for name in given.only or (MEASUREMENTS if row.compare else ["value"]):
            path = given.results / f"{row.name}.{name}.json"
            if not path.is_file():
                path.write_text(measured(row, name, given.models, given.data_dir), encoding="utf-8")
                document.write_text(page(rows, given.results), encoding="utf-8")
                print(path.name, flush=True)
    document.write_text(page(rows, given.results), encoding="utf-8")


def measured(row: Row, name: str, models: Path, data_dir: Path) -> str:
    """One measurement of a row, as JSON.

    Raises:
        UserError: If the row's model is not there.
    """
    model = models / row.model
    if not model.is_dir():
        raise UserError(f"--models: {models} has no folder {row.model!r}, whose rows are asked for.")
    return json.dumps(MEASUREMENTS[name](row, model, data_dir), indent=1)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
