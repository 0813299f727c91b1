"""Take further measurements of the saved stages of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation_config import EvaluationSettings, NamedSettings
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.loop import BASE
from forgetmenot.runs.plan import make_plan, question
from forgetmenot.runs.probing import make_probes, measure, table
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.saved import open_saved, take_up


def reprobe(
    run_dir: Path, probes: Sequence[str | Mapping[str, Any]], *, console: Console | None = None
) -> tuple[Path, dict[str, Any]]:
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
    directory = RunDirectory(run_dir)
    config = read_resolved(directory.path / "config.yaml")
    ranks.join()
    plan = make_plan(config, ReceiptLoader(config, directory))
    wanted = make_probes(config, _wanted(config, probes))
    stages = [row.name for row in plan.rows]
    found: dict[str, list[list[dict[str, Any]] | None]] = {name: [] for name in wanted}
    console = console if console and ranks.writes() else Console(quiet=True)
    with directory.locked(), Display(console) as display:
        session = open_saved(directory, config)
        session.learner.progress = display.progress
        task, tokenizer = plan.scored[0], session.learner.tokenizer
        first = question(config, task, plan.prompts[task.name], tokenizer, session.max_length)
        session.examine([s for one in first.encoded[:32] for s in one.candidates or (one.answer,)])
        for stage in stages:
            there = take_up(directory, session, plan.method, stage)
            for name, probe in wanted.items():
                parts = there and measure(probe, name, session.learner, plan.method, stage, BASE, directory)
                found[name].append([asdict(part) for part in parts] if parts else None)
    tables = {name: table(probe, stages, found[name]) for name, probe in wanted.items()}
    path = f"readings/probes-{'-'.join(wanted)}.json"
    directory.write_json(path, tables)
    return directory.path / path, tables


def _wanted(config: RunConfig, probes: Sequence[str | Mapping[str, Any]]) -> Sequence[NamedSettings]:
    own = {one.name: one.model_dump() for one in config.evaluation.probes}
    asked = [own.get(one, one) if isinstance(one, str) else one for one in probes]
    try:
        return EvaluationSettings.model_validate({"probes": asked}).probes
    except ValidationError as error:
        raise UserError(validation_sentence(error, EvaluationSettings, "--probes")) from error
