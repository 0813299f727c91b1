"""The export of a saved stage as one loadable model."""

from pathlib import Path

from forgetmenot.config import read_resolved
from forgetmenot.errors import UserError
from forgetmenot.record.layout import BASE, CONFIG
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.plan import make_plan
from forgetmenot.runs.saved import open_saved


def export(run_dir: Path, stage: str, out: Path) -> None:
    """Write a stage as one model that Transformers loads by itself, with its tokenizer.

    Args:
        run_dir: The run's directory.
        stage: Its number or name.
        out: A new directory.

    Raises:
        UserError: If there is no such stage, its weights are gone, the method answers with no single model,
            or `out` has something in it or cannot be made.
    """
    directory = RunDirectory(run_dir)
    config = read_resolved(directory.path / CONFIG)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new directory.")
    plan = make_plan(config)
    names = [row.name for row in plan.rows]
    found = [name for k, name in enumerate(names) if stage in (name, str(k), f"{k:02d}")]
    if not found:
        raise UserError(f"--stage: this run has no stage {stage!r}. Known: {', '.join(names)}.")
    if found[0] != BASE and plan.method.not_one_model:
        raise UserError(
            f"This run's method, {config.method.name}, {plan.method.not_one_model} "
            f"Its weights are in {directory.stage(found[0])}."
        )
    from forgetmenot.models.adapt import kind_of

    kind = kind_of(config.adapter)
    if found[0] != BASE and kind.not_one_model:
        raise UserError(
            f"{kind.not_one_model} The learned weights are in {directory.stage(found[0]) / kind.folder}."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); give another directory.") from error
    from forgetmenot.models.load import no_progress_bars
    from forgetmenot.models.quantize import merged
    from forgetmenot.runs.method_state import load_method_state

    session = open_saved(directory, config)
    if found[0] != BASE:
        session.to_stage(directory.stage(found[0]), trainable=False)
        load_method_state(plan.method, directory.stage(found[0]))
    with plan.method.answering(session.learner), no_progress_bars():
        merged(session.learner.model).save_pretrained(out)
    session.learner.tokenizer.save_pretrained(out)
