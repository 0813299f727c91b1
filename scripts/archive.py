"""The archive of a study: its finished runs in small files, from which every number can be computed again.

    python -m scripts.archive pack STUDY_DIR evidence/NAME      # runs that are there already are left alone
    python -m scripts.archive unpack evidence/NAME STUDY_DIR    # then `fmn study` goes on with the others
    python -m scripts.archive check evidence/NAME               # scores from the answers against results.json

A run is a file RUN.tar.xz with its config, environment, results, timing and every stage's scores and answers.
The texts of the examples are left out, which are not ours to give away, and so are weights, training logs and
the report; log-likelihoods have half precision. What an archived stage's answers were is known by the SHA-256
of their file in `archive.json`.
"""

import argparse
import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from forgetmenot.record.files import as_json
from forgetmenot.record.layout import (
    CONFIG,
    COST,
    ENVIRONMENT,
    EVENTS,
    PREDICTIONS,
    RESULTS,
    SCORES,
    STAGES,
    STUDY,
    TIMING,
)
from forgetmenot.record.predictions import Predictions, read_predictions, write_predictions
from forgetmenot.record.seal import entries, write_seal
from forgetmenot.report.comparison.runs import read_run
from forgetmenot.report.html import write_report

OF_A_RUN = (CONFIG, ENVIRONMENT, RESULTS, TIMING, EVENTS)
OF_A_STAGE = (SCORES, COST)
NOTE = "archive.json"
ROOMS = ("runs", "pilot")
"""The folders of a study that hold runs; the archive has the same."""


def pack(study: Path, archive: Path) -> list[str]:
    """Write the finished runs of a study that the archive lacks; returns their names."""
    archive.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(study / STUDY, archive / STUDY)
    packed = []
    for results in sorted(one for room in ROOMS for one in study.glob(f"{room}/*/{RESULTS}")):
        run = results.parent
        file = archive / run.parent.name / f"{run.name}.tar.xz"
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            with TemporaryDirectory() as folder:
                small = Path(folder) / run.name
                _shrink(run, small)
                _write_tar(small, file)
            packed.append(run.name)
    return packed


def unpack(archive: Path, study: Path) -> list[str]:
    """Put the archived runs where a study finds them finished; those that are there are left alone."""
    study.mkdir(parents=True, exist_ok=True)
    if not (study / STUDY).exists():
        shutil.copyfile(archive / STUDY, study / STUDY)
    unpacked = []
    for file in sorted(archive.glob("*/*.tar.xz")):
        run = study / file.parent.name / file.name.removesuffix(".tar.xz")
        if not run.exists():
            with tarfile.open(file) as tar:
                tar.extractall(run.parent, filter="data")
            write_report(run)
            unpacked.append(run.name)
    return unpacked


def check(archive: Path) -> Iterator[tuple[str, str | None]]:
    """Each archived run, and why its answers do not give its scores; None where they do."""
    with TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        for room in ROOMS:
            for run in sorted((Path(folder) / room).glob("*")):
                found = read_run(run, {})
                yield run.name, found.unpaired or found.failed


def _shrink(run: Path, small: Path) -> None:
    """Copy what is kept of a run, with seals of its own."""
    small.mkdir()
    for name in OF_A_RUN:
        if (run / name).is_file():
            shutil.copyfile(run / name, small / name)
    original = {}
    for stage in sorted((run / STAGES).iterdir()):
        target = small / STAGES / stage.name
        target.mkdir(parents=True)
        for name in OF_A_STAGE:
            if (stage / name).is_file():
                shutil.copyfile(stage / name, target / name)
        original[stage.name] = entries(stage)[PREDICTIONS]
        answers = read_predictions(stage / PREDICTIONS)
        write_predictions(target / PREDICTIONS, {task: _bare(one) for task, one in answers.items()})
        write_seal(target)
    (small / NOTE).write_text(as_json({"predictions": original}), encoding="utf-8")


def _bare(answers: Predictions) -> Predictions:
    """Answers without the texts of the examples, likelihoods in half precision."""
    likelihoods = [
        None if row is None else np.array(row).astype(np.float16).astype(np.float64).tolist()
        for row in answers.log_likelihoods
    ]
    nothing: list[str | None] = [None] * len(answers)
    return replace(answers, log_likelihoods=likelihoods, prompt_text=list(nothing), generated=list(nothing))


def _write_tar(folder: Path, file: Path) -> None:
    """A folder as one file, the same bytes whenever and by whomever it is written."""
    aside = file.with_name(f"{file.name}.part")
    with tarfile.open(aside, "w:xz", preset=9) as tar:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    aside.replace(file)


def main() -> None:
    """Pack, unpack or check, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, *paths in (("pack", "study", "archive"), ("unpack", "archive", "study"), ("check", "archive")):
        verb = verbs.add_parser(name)
        for path in paths:
            verb.add_argument(path, type=Path)
    parsed = parser.parse_args()
    if parsed.verb == "check":
        wrong = [f"{name}: {reason}" for name, reason in check(parsed.archive) if reason]
        count = len(list(parsed.archive.glob("*/*.tar.xz")))
        print(
            *wrong, f"{count - len(wrong)} of {count} runs have the scores that their answers give.", sep="\n"
        )
        raise SystemExit(bool(wrong))
    done = (
        pack(parsed.study, parsed.archive) if parsed.verb == "pack" else unpack(parsed.archive, parsed.study)
    )
    print(*done, f"{len(done)} runs {parsed.verb}ed.", sep="\n")


if __name__ == "__main__":
    main()
