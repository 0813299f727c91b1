"""Probes in a run: measured once for each stage, kept beside its scores, and put side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.evaluation.readings import scored_split
from forgetmenot.methods import Method
from forgetmenot.metrics import ability_delta
from forgetmenot.probes import Part, Probe, RunTask, make_probe
from forgetmenot.record.layout import MEASURED, STAGES
from forgetmenot.record.result_schema import ProbeTable
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.plan import Plan, data_folder
from forgetmenot.settings import NamedSettings

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

NOT_MEASURED = "The stage's weights were no longer on disk when this probe was asked for."


def make_probes(plan: Plan, wanted: Iterable[NamedSettings]) -> dict[str, Probe]:
    """Probes by name, ready to measure the stages of a run.

    Raises:
        UserError: If one does not exist or lacks something that it needs.
    """
    config = plan.config
    tasks = [
        RunTask(
            task,
            plan.prompts[task.name],
            scored_split(config.evaluation, task),
            config.training.max_length,
        )
        for task in plan.scored
    ]
    probes = {one.name: make_probe(one.name, one.options, data_folder(config)) for one in wanted}
    for probe in probes.values():
        probe.take_tasks(tasks)
    return probes


def measure_probe(
    probe: Probe,
    name: str,
    learner: Learner,
    method: Method,
    stage: str,
    base: str,
    directory: RunDirectory,
) -> list[Part]:
    """What a probe finds of the model as it stands after a stage, or before the first: `base`.

    Raises:
        UserError: If it cannot measure, with its name.
    """
    from forgetmenot.evaluation.routing import RoutedLearner

    try:
        with method.answering(learner):
            answering = RoutedLearner(learner, method)
            return list(probe.measure(answering, stage, base, directory.path / "probes" / name))
    except UserError as error:
        raise UserError(
            f"Probe {name}, stage {stage}: {error} What is finished is kept; run the same command again "
            "to resume."
        ) from error


def measure_stage(
    probes: Mapping[str, Probe],
    learner: Learner,
    method: Method,
    number: int,
    stage: str,
    base: str,
    directory: RunDirectory,
) -> None:
    """Measure a committed stage by the probes that have not measured it yet, and keep each at once."""
    began = time.perf_counter()
    for name, probe in probes.items():
        if name not in measured(directory, stage):
            found = measure_probe(probe, name, learner, method, stage, base, directory)
            done = {**measured(directory, stage), name: [asdict(part) for part in found]}
            directory.write_json(_file(stage), done)
            directory.event("probed", stage=stage, probe=name)
            ranks.wait()
    directory.record_time(number, {"probe_s": time.perf_counter() - began})


def measured(directory: RunDirectory, stage: str) -> dict[str, list[dict[str, Any]]]:
    """What probes found of a stage, by probe: a list of parts. All processes call it together."""
    return ranks.agreed(lambda: written(directory, stage))


def written(directory: RunDirectory, stage: str) -> dict[str, list[dict[str, Any]]]:
    """The same, as saved on disk."""
    return directory.read_json(_file(stage)) or {}


def _file(stage: str) -> str:
    return f"{STAGES}/{stage}/{MEASURED}"


def table(
    probe: Probe, stages: Sequence[str], found: Sequence[Sequence[Mapping[str, Any]] | None]
) -> ProbeTable:
    """One probe over all stages, the base first: stages × parts.

    Args:
        probe: The probe.
        stages: The stages' names.
        found: Each stage's parts; None where it was not measured.
    """
    names = list(dict.fromkeys(part["name"] for parts in found if parts is not None for part in parts))
    cells = [{part["name"]: part for part in parts or ()} for parts in found]

    def grid(key: str) -> list[list[Any]]:
        return [[row[name][key] if name in row else None for name in names] for row in cells]

    return ProbeTable(
        options=probe.options.model_dump(mode="json"),
        made_with=probe.made_with,
        parts=names,
        metrics={part["name"]: part["metric"] for parts in found if parts is not None for part in parts},
        stages=list(stages),
        values=grid("value"),
        intervals=grid("interval"),
        n=grid("n"),
        more=grid("more"),
        missing=[
            {"stage": stage, "part": name, "reason": row[name]["reason"] if name in row else NOT_MEASURED}
            for stage, row in zip(stages, cells, strict=True)
            for name in names
            if name not in row or row[name]["value"] is None
        ],
        delta={"name": probe.delta, "values": _deltas(grid("value"), names)} if probe.delta else None,
    )


def _deltas(values: Sequence[Sequence[float | None]], names: Sequence[str]) -> list[float | None]:
    """For each stage the mean over the parts of (after − base); None where a part is missing."""
    rows = [
        {name: value for name, value in zip(names, row, strict=True) if value is not None} for row in values
    ]
    base, whole = rows[0], set(names)
    return [
        ability_delta(base, row) if whole and base.keys() == row.keys() == whole else None for row in rows
    ]
