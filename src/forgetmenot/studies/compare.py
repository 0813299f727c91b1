"""The comparison of finished runs and studies: what varies among them is read from their configs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from forgetmenot.config import RunConfig, differences, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.report.comparison.claims import JudgedClaim
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.page import comparison_page
from forgetmenot.report.comparison.runs import ComparedRun, read_run
from forgetmenot.report.comparison.tables import print_comparison, table_files
from forgetmenot.report.published import load_published
from forgetmenot.report.screen import Screen
from forgetmenot.runs.directory import RunDirectory

WHOLE = ("model", "method", "prompt")
"""Sections whose keys vary together: a method is its name with its options."""


TITLE = "runs side by side</title>"
"""Stands in the page of every comparison."""


class WrittenComparison(Comparison):
    """A comparison of runs that is written to a directory.

    Attributes:
        path: Where compare.html and its tables are.
    """

    def __init__(self, name: str, runs: Sequence[ComparedRun], path: Path) -> None:
        super().__init__(name, runs)
        self.path = path

    def report(self) -> Path:
        """The page."""
        return self.path / "compare.html"

    def print(self, console: Console | None = None) -> None:
        """Print the conclusions and the table."""
        print_comparison(self, console or Screen())


def compare(paths: Sequence[str | Path], output: str | Path = "") -> WrittenComparison:
    """Compare runs, and write compare.html and its tables.

    Args:
        paths: Directories of runs and of studies; a study stands for its runs, those that failed too.
        output: Where to write; the current directory where it is empty.

    Raises:
        UserError: One is neither, there are fewer than two runs, or a file of another's would be replaced.
    """
    output = Path(output)
    found: dict[Path, str | None] = {}  # each run to the sentence that says why it failed
    for path in paths:
        for run, failed in _runs_of(Path(path)):
            found.setdefault(run.resolve(), failed)
    if len(found) < 2:
        (only,) = found
        given = (
            f"all {len(paths)} paths are of the same run, {only}" if len(paths) > 1 else f"{only} is one run"
        )
        raise UserError(
            f"fmn compare: {given}; give at least two different runs, or a study that has several."
        )
    configs = {path: _config(path, failed) for path, failed in found.items()}
    varies = _varies(configs)
    runs = [
        ComparedRun(path.name, varies[path], failed=failed) if failed else read_run(path, varies[path])
        for path, failed in found.items()
    ]
    _check_replaceable(output, "compare")
    name = Path(paths[0]).resolve().name if len(paths) == 1 else "Comparison"
    comparison = WrittenComparison(name, runs, output)
    output.mkdir(parents=True, exist_ok=True)
    write_comparison(comparison, RunDirectory(output), "compare")
    return comparison


def compare_study(results: Mapping[str, Any], folder: Path, published: str | None = None) -> Comparison:
    """Compare the runs of a study.

    Args:
        results: The content of study.json.
        folder: The study's directory.
        published: The paper that they are held against; with Haque's, forgetting is what he calls so.
    """
    return Comparison(
        results["name"],
        [
            ComparedRun(one["run"], one["varies"], failed=one["failed"])
            if one["failed"]
            else read_run(folder / "runs" / one["run"], one["varies"])
            for one in results["runs"]
        ],
        haque=(published or "").startswith("haque"),
    )


def write_comparison(
    comparison: Comparison,
    directory: RunDirectory,
    name: str,
    published: str | None = None,
    claims: Sequence[JudgedClaim] = (),
) -> None:
    """Write NAME.html, NAME.csv, NAME-runs.csv, NAME-tests.csv and NAME.tex.

    Args:
        comparison: What was compared.
        directory: Where to.
        name: What the files' names begin with.
        published: The paper whose figures the page shows beside the runs'.
        claims: What was stated before the runs, judged.
    """
    page = comparison_page(
        comparison, load_published(published) if published else None, claims, directory.path
    )
    for file, text in {f"{name}.html": page, **table_files(comparison, name)}.items():
        directory.write_text(file, text)


def _check_replaceable(output: Path, name: str) -> None:
    """See that an earlier comparison's files are replaced, and no others; its page is the first of them.

    Raises:
        UserError: If there are others.
    """
    files = (f"{name}.html", f"{name}.csv", f"{name}-runs.csv", f"{name}-tests.csv", f"{name}.tex")
    there = [file for file in files if (output / file).exists()]
    page = output / files[0]
    ours = page.is_file() and TITLE in page.read_text(encoding="utf-8", errors="replace")
    if there and not ours:
        raise UserError(
            f"--output: {output / there[0]} would be replaced, and no comparison of forgetmenot wrote it; "
            "move it away, or give another folder."
        )


def _runs_of(path: Path) -> list[tuple[Path, str | None]]:
    """The directories of the runs that a path stands for, each with why it failed."""
    study = RunDirectory(path).read_json("study.json")
    if study is not None:
        return [(path / "runs" / one["run"], one["failed"]) for one in study["runs"]]
    if not (path / "results.json").is_file():
        raise UserError(
            f"{path} is neither a finished run nor a study: it has no results.json or study.json."
        )
    return [(path, None)]


def _config(path: Path, failed: str | None) -> RunConfig:
    """A run's config; a study keeps that of one which failed beside where its directory would be."""
    beside = path.with_name(f"{path.name}.yaml")
    return read_resolved(beside if failed and beside.is_file() else path / "config.yaml")


def _varies(configs: Mapping[Path, RunConfig]) -> dict[Path, dict[str, Any]]:
    """What tells each run from the others: model, method, order, prompt, seed, or another key of the config.

    Two runs of the very same config are told by the names of their directories.
    """
    first, *others = configs.values()
    keys = {key for other in others for key in differences(first, other)}
    sections = {key.partition(".")[0] if key.partition(".")[0] in WHOLE else key for key in keys}
    same_tasks = len({tuple(sorted(config.tasks)) for config in configs.values()}) == 1
    varies = {}
    for path, config in configs.items():
        values = config.model_dump(mode="json", exclude_defaults=False)
        row = {}
        for key in sorted(sections, key=_place):
            name = "order" if key == "tasks" and same_tasks else key
            row[name] = _value(values, key)
        varies[path] = row
    if len({repr(row) for row in varies.values()}) < len(varies):
        return {path: {**row, "run": path.name} for path, row in varies.items()}
    return varies


def _place(key: str) -> tuple[int, str]:
    """Where a key stands among the others: the model first, the conditions last."""
    names = ("model", "method", None, "tasks", "prompt", "seed")
    return names.index(key if key in names else None), key


def _value(values: Any, key: str) -> Any:
    """The value of a dotted key; a section with a name alone is that name."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
