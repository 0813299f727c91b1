"""What to do about a damaged file of a run: a sentence that names the file, why, and a way out."""

from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.record.layout import (
    BASE,
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    MEASURED,
    PROBES,
    RECEIPTS,
    REPORT,
    RESULTS,
    SEAL,
    STAGES,
    TIMING,
)


class DamagedError(UserError):
    """A file of a run is not what was written there."""


def damaged(path: Path, why: str) -> DamagedError:
    """The sentence on a file that is not what was written there: which, why, and what to do."""
    return DamagedError(f"{path} is damaged: {why}. {_remedy(path)}")


def _remedy(path: Path) -> str:
    stage = stage_of(path)
    seal = (stage or path.parent) / SEAL
    if path.name == SEAL:
        return "Delete it: what it lists is then read as it is, unchecked."
    if stage is not None:
        if path.name == MEASURED:
            return f"Delete it and {seal}: its probes are then measured again, and the stage is unchecked."
        return _make_again(stage)
    if path.name in (TIMING, EVENTS):
        return "Delete it; only the times of finished stages are lost with it."
    if path.name in (RESULTS, REPORT):
        return f"Delete it and run {_command(path.parent)}, which writes it again from the stages."
    if path.name == ENVIRONMENT:
        return (
            f"Put it back from a copy. Or delete it and {seal}: the run then goes on, and that data, model "
            "and machine are those that it began with is not checked."
        )
    if path.name == CONFIG:
        return (
            "Put it back from a copy, or delete it and run the command that began the run, which writes it "
            f"again. Where the change is meant, delete {seal}."
        )
    if path.parent.name == RECEIPTS:
        return f"Delete {path.parent} and run the same command again, which issues them anew."
    probe = path.parent if path.parent.parent.name == PROBES else path.parent.parent
    if probe.parent.name == PROBES:
        base = probe.parent.parent / STAGES / BASE
        return f"Delete {probe}, {base / MEASURED} and {base / SEAL}: the base model is measured again."
    return "Put it back from a copy, or delete it and run the same command again."


def _make_again(stage: Path) -> str:
    """Which folders to delete so that the run makes a stage again: it needs the weights of the one before."""
    if not (stage.parent.parent / CONFIG).is_file():
        return "Put it back from a copy, or start over."
    names = stages_in(stage.parent)
    place = first = names.index(stage.name) if stage.name in names else 0
    while first > 1 and not any(one.is_dir() for one in (stage.parent / names[first - 1]).glob("[!.]*")):
        first -= 1
    gone = " and ".join(str(stage.parent / name) for name in names[first : place + 1]) or str(stage)
    what = "scores the base model again" if stage.name == BASE else "trains and scores this stage again"
    if first < place:
        what = "trains and scores these stages again (weights were kept of none between)"
    return f"Delete {gone} and run {_command(stage.parent.parent)}, which {what}; all others stay."


def _command(run_dir: Path) -> str:
    return f"`fmn run {run_dir / CONFIG} --output {run_dir}`"


def stages_in(folder: Path) -> list[str]:
    """The names of the stages under a run's folder of stages, in order."""
    names = [one.name for one in folder.glob("[0-9]*-*") if one.is_dir()]
    return sorted(names, key=lambda name: (len(name.partition("-")[0]), name))


def stage_of(path: Path) -> Path | None:
    """The folder of the committed stage that a file is in."""
    return next((one for one in path.parents if one.parent.name == STAGES and one.name[:1] != "."), None)
