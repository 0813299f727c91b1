"""Further probes of the saved stages of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.readings import scored_task
from forgetmenot.evaluation.settings import EvaluationSettings
from forgetmenot.paths import file_name
from forgetmenot.record.layout import BASE, CONFIG, READINGS
from forgetmenot.record.result_schema import ProbeTable
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import make_plan
from forgetmenot.runs.probing import make_probes, measure_probe, table
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.saved import open_saved, other_than_begun, take_up
from forgetmenot.settings import NamedSettings


def reprobe(
    run_dir: str | Path, probes: Sequence[str | Mapping[str, Any]], *, console: Console | None = None
) -> tuple[Path, dict[str, ProbeTable]]:
    """Measure every stage of a run whose weights are still there.

    Args:
        run_dir: The run's directory.
        probes: Names, or {"name": NAME, its option: value}; a name alone has the options of the run's config.
        console: Where to show progress.

    Returns:
        The file under readings/ that the measurements are in, and they themselves, by probe: as in
        results.json.

    Raises:
        UserError: If this is no run, or a probe does not exist or cannot measure.
    """
    directory = RunDirectory(Path(run_dir))
    config = read_resolved(directory.path / CONFIG)
    with opened(directory, console) as display:
        plan = make_plan(config, ReceiptLoader(config, directory))
        if other := other_than_begun(begun_with(directory), plan):
            display.say(
                f"{directory.path}: {other} is other than the run began with; probes that ask the run's "
                "tasks measure what is there now."
            )
        wanted = make_probes(plan, _wanted(config, probes))
        stages = [row.name for row in plan.rows]
        found: dict[str, list[list[dict[str, Any]] | None]] = {name: [] for name in wanted}
        session = open_saved(directory, config, display)
        task = plan.scored[0]
        first = scored_task(config.asking, task, plan.prompts[task.name], session.learner, session.max_length)
        session.examine(first.first_sequences())
        for stage in stages:
            there = take_up(directory, session, plan.method, stage)
            for name, probe in wanted.items():
                parts = there and measure_probe(
                    probe, name, session.learner, plan.method, stage, BASE, directory
                )
                found[name].append([asdict(part) for part in parts] if parts else None)
        tables = {name: table(probe, stages, found[name]) for name, probe in wanted.items()}
        about = {name: [found["options"], found["made_with"]] for name, found in tables.items()}
        path = f"{READINGS}/{file_name('-'.join(['probes', *wanted]), about)}.json"
        directory.write_json(path, tables)
    return directory.path / path, tables


def _wanted(config: RunConfig, probes: Sequence[str | Mapping[str, Any]]) -> Sequence[NamedSettings]:
    own = {one.name: one.model_dump() for one in config.evaluation.probes}
    asked = [own.get(one, one) if isinstance(one, str) else one for one in probes]
    try:
        return EvaluationSettings.model_validate({"probes": asked}).probes
    except ValidationError as error:
        raise UserError(validation_sentence(error, EvaluationSettings, "--probes")) from error
