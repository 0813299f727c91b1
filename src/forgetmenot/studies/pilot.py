"""The pilot of a study: is there anything to learn and anything to lose, before hours are spent?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.metrics import Contrast, contrast
from forgetmenot.paths import path_safe
from forgetmenot.record.layout import STUDY
from forgetmenot.report.comparison.runs import ComparedRun, majority, read_run
from forgetmenot.report.comparison.weighted import END, UntestableError, Weighted, weighted
from forgetmenot.report.wording import listed, number, signed
from forgetmenot.runs.api import is_finished
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.studies.config import StudyConfig, StudyRun, expand_study, load_study, run_of

METHODS = ("joint", "sequential")


def check_unchanged(config: StudyConfig, runs: Sequence[StudyRun], directory: RunDirectory) -> None:
    """See that what was stated before the runs is what was stated.

    Raises:
        UserError: The protocol differs from that of the directory's study, of which a run has finished.
    """
    file = directory.path / STUDY
    if not file.is_file() or load_study(file).protocol == config.protocol:
        return
    finished = [run for run in runs if is_finished(RunDirectory(run.config.directory), run.config)]
    if finished:
        raise UserError(
            f"protocol: it is not that of {file}, and {len(finished)} of the runs have finished. Claims are "
            "stated before the runs: take the earlier protocol, or give the study another output."
        )


def pilot_runs(study: StudyConfig) -> list[StudyRun]:
    """The runs of a study's pilot; none where it has none.

    Raises:
        UserError: A seed of the pilot is one of the study's own, or the study has several models or lists
            of tasks, of which one pilot says nothing.
    """
    pilot = study.protocol.pilot
    if pilot is None:
        return []
    for axis in study.grid:
        for key in (one.strip() for one in axis.split(",")):
            if key.split(".")[0] in ("model", "tasks", "data_dir"):
                raise UserError(
                    f"protocol.pilot: the grid varies {key}, and a pilot has one model and one list of "
                    "tasks; leave it out, or make a study of each."
                )
    own = {run.config.seed for run in expand_study(study)}
    if both := sorted(own & set(pilot.seeds)):
        raise UserError(
            f"protocol.pilot.seeds: {listed(list(map(str, both)))} is a seed of the study too; take others."
        )
    return [
        run_of(
            study,
            {"method": method, "seed": seed, "evaluation.split": "select"},
            f"protocol.pilot: the run of {method} with seed {seed}",
            folder=f"pilot/{path_safe(method)}-{seed}",
        )
        for method in METHODS
        for seed in pilot.seeds
    ]


def judge_pilot(runs: Sequence[StudyRun], ended: Mapping[Path, tuple[int, str | None]]) -> str:
    """What the pilot says, as a sentence.

    Raises:
        UserError: Something failed, `joint` is not surely above always giving the commonest answer, or not
            surely above `sequential`.
    """
    for run in runs:
        if (failed := ended.get(run.config.directory, (0, None))[1]) is not None:
            raise UserError(f"protocol.pilot: the run of {run.title} failed. {failed}")
    joint, sequential = (
        [_read(run) for run in runs if run.config.method.name == method] for method in METHODS
    )
    for one in (*joint, *sequential):
        if one.failed is not None:  # it has diverged
            raise UserError(f"protocol.pilot: the run {one.name} has no scores. {one.failed}")
    try:
        alone, gap = weighted([(1, joint)], END), weighted([(1, joint), (-1, sequential)], END)
    except UntestableError as reason:
        raise UserError(f"protocol.pilot: it cannot be judged. {reason}") from reason
    commonest = majority(joint[0])
    ended_at, above = alone.means[0], _contrast(gap, 0.0)
    said = f"joint ends at {number(ended_at)}, above sequential by {_told(above)}"
    short = []
    if commonest is not None:
        learned = _contrast(alone, commonest)
        said += f", and above always the commonest answer ({number(commonest)}) by {_told(learned)}"
        if learned.interval[0] <= 0:
            short.append("joint is not surely above the commonest answer: too little is learned")
    if above.interval[0] <= 0:
        short.append("joint is not surely above sequential: too little is lost")
    if short:
        raise UserError(
            f"protocol.pilot: {'; '.join(short)}, so methods could not be told apart. Seen: {said}. Train on "
            "more examples or longer, take tasks that the model learns, or leave the pilot out."
        )
    return f"The pilot passes: {said}."


def _read(run: StudyRun) -> ComparedRun:
    return read_run(run.config.directory, run.varies)


def _contrast(found: Weighted, bound: float) -> Contrast:
    total = found.means[0] - (found.means[1] if len(found.means) > 1 else 0.0)
    return contrast(total, bound, found.resampled - bound, [value - bound for value in found.by_seed])


def _told(found: Contrast) -> str:
    low, high = found.interval
    return f"{signed(found.difference)} (95 % interval {signed(low)} to {signed(high)})"
