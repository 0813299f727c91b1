"""The results of one run, read off its directory: predictions, costs, and what the probes found."""

from collections.abc import Mapping, Sequence
from typing import Any

from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.metrics import MatrixRow
from forgetmenot.probes import Probe
from forgetmenot.record.assemble import assemble
from forgetmenot.record.cost import read_cost
from forgetmenot.record.layout import ASKED_AGAIN, BASE, STAGES
from forgetmenot.record.learned_tokens import learned_tokens
from forgetmenot.record.predictions import read_predictions
from forgetmenot.record.result_schema import Cost, ProbeTable, Results
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.probing import table, written


def read_results(
    directory: RunDirectory,
    rows: Sequence[MatrixRow],
    scored: Mapping[str, Sequence[ScoredTask]],
    described: Mapping[str, Any],
    further_cost: Cost,
    probes: Mapping[str, Probe],
) -> Results:
    """Read what every stage left and derive results.json from it.

    Args:
        directory: The run's; every stage of `rows` is committed.
        rows: The stages, the base first.
        scored: What was asked, by the file that the predictions are in: the headline first.
        described: What the run was; see `record.assemble.assemble`.
        further_cost: What the stages' folders do not say.
        probes: By name.
    """
    readings = []
    for file, tasks in scored.items():
        answers = [read_predictions(directory.stage(row.name) / file) for row in rows]
        readings.append([one.asked([stage.get(one.task.name) for stage in answers], rows) for one in tasks])
    costs = {row.name: read_cost(directory.stage(row.name)) for row in rows}
    learned = {row.name: learned_tokens(directory.stage(row.name)) for row in rows}
    cost = Cost(
        **_cost(costs),
        answer_tokens={name: tokens for name, tokens in learned.items() if tokens is not None},
        **further_cost,
    )
    results = assemble(rows, readings, described, cost, _probe_tables(directory, rows, probes))
    again = directory.read_json(f"{STAGES}/{BASE}/{ASKED_AGAIN}")
    if again is not None:
        results["asked_again"] = again
    return results


def _probe_tables(
    directory: RunDirectory, rows: Sequence[MatrixRow], probes: Mapping[str, Probe]
) -> dict[str, ProbeTable]:
    """What each probe found over all stages."""
    found = [written(directory, row.name) for row in rows]
    names = [row.name for row in rows]
    return {name: table(probe, names, [one.get(name) for one in found]) for name, probe in probes.items()}


def _cost(stages: Mapping[str, Mapping[str, dict[str, int]]]) -> Cost:
    """Input positions of each stage, and what the method keeps after each trained one."""
    kept = {name: cost["kept"] for name, cost in stages.items() if "kept" in cost}
    rehearsed = {name: one["rehearsed"] for name, one in kept.items() if "rehearsed" in one}
    found = Cost(
        positions={
            name: {part: n for part, n in cost.items() if part != "kept"} for name, cost in stages.items()
        },
        memory_kept={name: one["bytes"] for name, one in kept.items()},
        parameters_added={name: one["parameters_added"] for name, one in kept.items()},
    )
    return Cost(**found, rehearsed=rehearsed) if rehearsed else found
