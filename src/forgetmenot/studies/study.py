"""A study: every run of a grid, and their comparison."""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from forgetmenot.errors import UserError
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.watched import load_benchmarks
from forgetmenot.metrics import spread
from forgetmenot.process import GLANCE, Job
from forgetmenot.record.damage import DamagedError
from forgetmenot.record.layout import STUDY
from forgetmenot.record.results import load_results
from forgetmenot.report.comparison.claims import JudgedClaim, judge
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.conclusions import conclusions
from forgetmenot.report.comparison.study_tables import (
    FIGURES,
    print_study,
    study_cells,
    study_csv,
    study_markdown,
    study_table,
)
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import Run, is_finished
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.plan import check_trackers, make_plan
from forgetmenot.studies.compare import compare_study, write_comparison
from forgetmenot.studies.config import Resources, StudyConfig, StudyRun, expand_study, load_study
from forgetmenot.studies.display import StudyDisplay, print_plan
from forgetmenot.studies.launch import (
    DONE,
    MISTAKE,
    Place,
    Started,
    cores_here,
    ray_cluster,
    status_and_sentence,
    this_machine,
    threads_given,
)
from forgetmenot.studies.pilot import check_unchanged, judge_pilot, pilot_runs
from forgetmenot.studies.workers import default_workers
from forgetmenot.tasks import Task, expand, load_tasks

if TYPE_CHECKING:
    import pandas as pd


REPORT = "report"
"""What the names of a study's page and of its tables begin with."""


class Study:
    """A study on disk.

    Attributes:
        path: Its directory.
        results: The content of study.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        results = RunDirectory(self.path).read_json("study.json")
        if results is None:
            raise UserError(f"{self.path} holds no finished study: there is no study.json.")
        self.results: dict[str, Any] = results

    @property
    def runs(self) -> list[Run]:
        """The runs that finished."""
        return [Run(self.path / "runs" / one["run"]) for one in self.results["runs"] if not one["failed"]]

    @property
    def failed(self) -> dict[str, str]:
        """The runs that did not: directory to the sentence that says why."""
        return {one["run"]: one["failed"] for one in self.results["runs"] if one["failed"]}

    @property
    def status(self) -> int:
        """The exit status: 0 where all runs finished, otherwise the worst of theirs, 2 or 70."""
        return max(int(one["status"]) for one in self.results["runs"])

    @property
    def table(self) -> "pd.DataFrame":
        """One row for each run: what varies, and the figures."""
        return study_table(self.results)

    @property
    def cells(self) -> "pd.DataFrame":
        """One row for each cell of the grid, its seeds averaged: each figure and its standard deviation."""
        return study_cells(self.results)

    def report(self) -> Path:
        """Write report.html and its tables again, from the runs as they are there; returns the page's path.

        Raises:
            UserError: A run is not there any more, or is damaged.
        """
        config = load_study(self.path / STUDY)
        comparison, claims = _judged(self.results, config, self.path)
        write_comparison(comparison, RunDirectory(self.path), REPORT, config.published, claims)
        return self.path / f"{REPORT}.html"

    def print(self, console: Console | None = None) -> None:
        """Print the table of the cells."""
        print_study(self.results, console or Screen())


def study(
    config: StudyConfig | Mapping[str, Any] | str | Path,
    *,
    workers: int | None = None,
    ray: bool | str = False,
    console: Console | None = None,
) -> Study:
    """Take every run of a study to its end, report those that fail, and put the others side by side.

    Runs that are finished are only read; one that was interrupted resumes from its last finished stage.

    Args:
        config: A study, a path to one, or the content of its file.
        workers: Runs at a time on a machine, which share its cores unless `resources` says otherwise. Unless
            given: two where there is no GPU and they fit, otherwise one; with Ray one on each node.
        ray: Start them by Ray: True on this machine, an address on a running cluster.
        console: Where to show progress; None shows nothing.

    Raises:
        UserError: If anything that the study names is not there or does not fit, before a run is started.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers: give a number of at least 1 (given: {workers}).")
    if not isinstance(config, StudyConfig):
        config = load_study(config)
    console = console or Screen(quiet=True)
    runs = expand_study(config)
    directory = RunDirectory(config.directory)
    with directory.locked("study"):
        check_unchanged(config, runs, directory)
        pending = [run for run in runs if not _finished(run)]
        _check(pending)
        directory.write_text(STUDY, config.to_yaml())

        def go_through(some: Sequence[StudyRun]) -> dict[Path, tuple[int, str | None]]:
            to_do = [run for run in some if not _finished(run)]
            print_plan(some, to_do, console)
            if not to_do:
                return {}
            address, resources = ray if isinstance(ray, str) else None, config.resources
            slots = workers or (1 if ray else _default_workers(to_do, resources, console))
            room = ray_cluster(resources, slots, address) if ray else this_machine(resources, slots)
            with room as place:
                console.print(Text(f"Threads of each run: {place.threads} ({place.why})", style="dim"))
                with StudyDisplay(console, len(some), len(to_do)) as display:
                    return _go_through(to_do, place, directory, display)

        pilot = pilot_runs(config)
        if pilot and pending:
            console.print("The pilot, on the select split:", highlight=False)
            said = judge_pilot(pilot, go_through(pilot))
            console.print(f"{said}\n", highlight=False)
            directory.write_text("pilot.txt", said + "\n")
        ended = go_through(runs)
        results = _assemble(config, runs, ended)
        comparison, claims = _judged(results, config, directory.path)
        results["claims"] = [claim.to_json() for claim in claims]
        results["conclusions"] = conclusions(comparison, claims)
        directory.write_json("study.json", results)
        directory.write_text("study.csv", study_csv(results))
        directory.write_text("study.md", study_markdown(results))
        write_comparison(comparison, directory, REPORT, config.published, claims)
    return Study(directory.path)


def _default_workers(runs: Sequence[StudyRun], resources: Resources, console: Console) -> int:
    """How many of some runs go on at a time, which is said."""
    threads, _ = threads_given(resources) or (1, "")
    count, why = default_workers([run.config for run in runs], threads, cores_here())
    console.print(Text(f"Runs at a time: {count} ({why}; --workers N for another number)", style="dim"))
    return count


def _judged(
    results: Mapping[str, Any], config: StudyConfig, folder: Path
) -> tuple[Comparison, list[JudgedClaim]]:
    """The runs of a study side by side, and what they make of its claims."""
    comparison = compare_study(results, folder, config.published)
    return comparison, judge(comparison, config.protocol.claims)


def _finished(run: StudyRun) -> bool:
    """Whether a run is there whole; one that was damaged since says so itself when it is started."""
    try:
        return is_finished(RunDirectory(run.config.directory), run.config)
    except DamagedError:
        return False


def _check(runs: Sequence[StudyRun]) -> None:
    """Check every run's tasks, prompts and method, before hours are spent on the first.

    Raises:
        UserError: If one would end with it, naming the run.
    """
    load_one = cache(lambda name, folder: load_tasks([name], folder))  # the runs mostly have the same tasks

    def load(names: Sequence[str], folder: Path | None) -> list[Task]:
        return [task for name in expand(names) for task in load_one(name, folder)]

    watch_one = cache(lambda name, folder, limit: load_benchmarks([name], folder, limit))

    def watch(names: Sequence[str], folder: Path | None, limit: int | None) -> list[Benchmark]:
        return [task for name in names for task in watch_one(name, folder, limit)]

    for run in runs:
        try:
            check_trackers(run.config)
            make_plan(run.config, load, watch)
        except UserError as error:
            raise UserError(f"The run of {run.title}: {error}") from error


def _go_through(
    runs: Sequence[StudyRun], place: Place, directory: RunDirectory, display: StudyDisplay
) -> dict[Path, tuple[int, str | None]]:
    """Take runs to their end, so many at a time; returns each one's status and why it failed."""
    waiting, running = deque(runs), list[tuple[StudyRun, Job, Started]]()
    ended: dict[Path, tuple[int, str | None]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < place.slots:
                run = waiting.popleft()
                job = _job(run, place.threads, directory)
                running.append((run, job, place.start(job)))
                display.started(run)
            time.sleep(GLANCE)
            for entry in list(running):
                run, job, started = entry
                returned = started.poll()
                if returned is not None:
                    running.remove(entry)
                    ended[run.config.directory] = _outcome(run, returned, job.log)
                    display.ended(run, ended[run.config.directory][1])
    finally:
        for _, _, started in running:  # all of them save at the same time: a scheduler waits for seconds
            started.terminate()
        for _, _, started in running:
            started.farewell()
    return ended


def _outcome(run: StudyRun, returned: int, log: Path) -> tuple[int, str | None]:
    """A run's exit status, and the sentence that says why it failed; what it wrote must be readable here.

    Each run is a new process, of the program as it is installed by then.
    """
    status, sentence = status_and_sentence(returned, log)
    if sentence is None:
        try:
            load_results(run.config.directory)
        except UserError as error:
            return MISTAKE, (
                "it ended without an error, but this study cannot read its results: the program, or its "
                f"directory, was changed while the study ran. Start the study again. ({error})"
            )
    return status, sentence


def _job(run: StudyRun, threads: int, directory: RunDirectory) -> Job:
    """Write a run's config beside its directory, where its log will be too."""
    name = f"runs/{run.config.directory.name}"
    directory.write_text(f"{name}.yaml", run.config.to_yaml())
    return Job(Path.cwd(), directory.path / f"{name}.yaml", directory.path / f"{name}.log", threads)


def _assemble(
    config: StudyConfig, runs: Sequence[StudyRun], ended: Mapping[Path, tuple[int, str | None]]
) -> dict[str, Any]:
    """The content of study.json: every run's figures, and those of every cell over its seeds."""
    rows = [_row(run, *ended.get(run.config.directory, (DONE, None))) for run in runs]
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(json.dumps(_without_seed(row)), []).append(row)
    return {
        "version": 1,
        "name": config.name,
        "grid": config.grid,
        "runs": rows,
        "cells": [_cell(cell) for cell in cells.values()],
    }


def _row(run: StudyRun, status: int, failed: str | None) -> dict[str, Any]:
    path = run.config.directory
    if failed is None:
        try:
            failed = load_results(path).not_finite
        except UserError as error:  # damaged since it finished
            status, failed = MISTAKE, str(error)
    row = {"run": path.name, "varies": run.varies, "status": status, "failed": failed}
    if failed:
        return {**row, "figures": None, "reasons": {}, "not_learned": []}
    results = Run(path).results
    summary: dict[str, Any] = {**results["summary"]}
    reasons = {name: reason for name, reason in summary["reasons"].items() if name in FIGURES}
    figures = {name: summary[name] for name in FIGURES}
    return {**row, "figures": figures, "reasons": reasons, "not_learned": results["not_learned"]}


def _cell(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One cell: over the seeds that finished; a figure that one of them lacks has none."""
    finished = [row for row in rows if not row["failed"]]
    figures: dict[str, Any] = {}
    for name in FIGURES:
        values = [row["figures"][name] for row in finished]
        figures[name] = spread(values).to_json() if values and None not in values else None
    return {
        "varies": _without_seed(rows[0]),
        "runs": [row["run"] for row in finished],
        "failed": len(rows) - len(finished),
        "figures": figures,
        "not_learned": sorted({task for row in finished for task in row["not_learned"]}),
    }


def _without_seed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["varies"].items() if key != "seed"}
