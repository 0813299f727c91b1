"""A run's directory: its files, none of which is ever read half-written."""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.record.damage import damaged, stage_of
from forgetmenot.record.files import as_json, open_by_umask, put_aside, remove, sync, write_text
from forgetmenot.record.layout import (
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    PROBES,
    READINGS,
    RECEIPTS,
    REPORT,
    RESULTS,
    SCORES,
    SEAL,
    STAGES,
    TIMING,
    TRAINED,
    stage_folder,
)
from forgetmenot.record.seal import (
    check_stage,
    forget,
    forget_removed,
    read_json,
    write_seal,
    write_sealed,
)
from forgetmenot.record.timing import read_timing
from forgetmenot.record.trained import Trained, read_trained, write_trained
from forgetmenot.runs.ownership import LOCK, Kind, check_ours, mark

SEALED = (CONFIG, ENVIRONMENT, TIMING, RESULTS)
"""The files of a run's own folder that its seal lists: what numbers are read from or depend on."""

GLANCE = 0.2  # seconds; longer than anybody takes who looks whether a directory is held

Change = TypeVar("Change", bound=Callable[..., None])


def _by_the_writer(change: Change) -> Change:
    """Let one process of several make a change; for the others it does nothing."""

    @wraps(change)
    def made(*arguments: Any, **named: Any) -> None:
        if ranks.writes():
            change(*arguments, **named)

    return cast(Change, made)


class RunDirectory:
    """Reads and writes the files of one run.

    config.yaml, environment.json, events.jsonl, timing.json, stages/NN-name/…, results.json, report.html.
    A stage's folder appears whole, by a rename, or not at all. Of several processes one writes; all read, so
    that processes on several machines need a directory that they share.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = False
        """Whether this process has begun to write the run, or to go on with it."""

    @contextmanager
    def locked(self, kind: Kind = "run") -> Iterator[None]:
        """Hold the directory, so that two runs never write into it.

        Folders that were made for it are removed again where the work fails before it writes anything.

        Args:
            kind: What is written into it.

        Raises:
            UserError: If another run holds it, it cannot be made, or it holds what is not ours.
        """
        if not ranks.writes():
            yield
            return
        made = self.check_writable()
        check_ours(self.path, kind)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"output: {self.path} cannot be written ({error.strerror}).") from error
        with lock, _unmade_if_unused(made):
            try:
                _hold(lock)
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path} is in use by another process; wait for it, or choose another output."
                ) from error
            mark(lock, kind)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Take up or remove what was being written or removed when a run was killed."""
        for gone in self.path.glob(f"{STAGES}/.*.gone"):  # a commit was killed while it replaced a stage
            stage = self.stage(gone.name.removeprefix(".").removesuffix(".gone"))
            if not stage.exists():
                gone.rename(stage)
        names = (*SEALED, SEAL, REPORT)
        left = [self.path / f".{name}.writing" for name in names]
        for pattern in (".*.writing", ".*.gone", "*/.*.writing", "*/.*.gone"):
            left += self.path.glob(f"{STAGES}/{pattern}")
        for one in left:
            if (one / TRAINED).is_file():  # trained, and not scored yet
                continue
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)

    def check_writable(self) -> list[Path]:
        """See that the directory can be written, and write nothing.

        Returns:
            The folders that have to be made for it, itself first.

        Raises:
            UserError: If it cannot be.
        """
        missing: list[Path] = []
        for folder in (self.path, *self.path.absolute().parents):
            try:
                folder.stat()
            except FileNotFoundError:
                missing.append(folder)
                continue
            except OSError as error:
                raise UserError(f"output: {self.path} cannot be written ({error.strerror}).") from error
            if not folder.is_dir():
                raise UserError(f"output: {self.path} cannot be written ({folder} is no folder).")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UserError(f"output: {self.path} cannot be written ({folder} is read-only).")
            break
        return missing

    @_by_the_writer
    def clear(self) -> None:
        """Remove everything that a run wrote here; the stages go before the config that they are of.

        Receipts stay: their names stand for all that they depend on.
        """
        for name in (
            SEAL,
            RESULTS,
            REPORT,
            "receipts.json",
            "receipts.md",
            EVENTS,
            TIMING,
        ):
            (self.path / name).unlink(missing_ok=True)
        for name in (STAGES, READINGS, PROBES):
            remove(self.path / name)
        for name in (ENVIRONMENT, CONFIG):
            (self.path / name).unlink(missing_ok=True)

    @_by_the_writer
    def begin(self, config: str) -> None:
        """Write the config; what an earlier, shorter list of tasks ended in no longer stands."""
        forget(self.path / RESULTS)
        (self.path / RESULTS).unlink(missing_ok=True)
        self.write_text(CONFIG, config)
        self.begun = True

    def check(self, stages: Sequence[str]) -> None:
        """Hold what a run that is taken up again stands on against its seals; weights when they are loaded.

        Args:
            stages: The names of its stages, the base first; they need not be finished.

        Raises:
            UserError: A file of a finished stage is not what was written there, or the run's own cannot be
                read.
        """
        for name in stages:
            if self.is_committed(name):
                check_stage(self.stage(name))
        for path in (self.path / name for name in (EVENTS, RESULTS, REPORT)):
            if path.is_dir():
                raise damaged(path, "a folder stands in its place")
        read_timing(self.path)

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return stage_folder(self.path, name)

    def is_committed(self, name: str) -> bool:
        """Whether a stage is finished: trained, scored and on disk.

        Raises:
            UserError: Its folder is there and has no scores.
        """
        stage = self.stage(name)
        if stage.exists() and not (stage / SCORES).is_file():
            raise damaged(stage / SCORES, "it is missing")
        return stage.exists()

    @contextmanager
    def committing(self, name: str) -> Iterator[Path]:
        """Give a folder to write a stage into; when all went well it becomes the stage's folder.

        What an earlier commit of the stage left there is in it already, and so is what its training left
        (`trained`). A process that does not write gets a folder that is thrown away, and goes on when the
        stage's is in its place.
        """
        if not ranks.writes():
            with tempfile.TemporaryDirectory() as unread:
                yield Path(unread)
            ranks.wait()
            return
        stage, aside = self.stage(name), self.writing(name)
        if (trained := read_trained(aside)) is not None:
            for file in aside.iterdir():
                if file.name not in (TRAINED, *trained.names()):  # scores that were not finished
                    file.unlink()
        elif aside.exists():
            shutil.rmtree(aside)
        if stage.exists():
            check_stage(stage)
            shutil.copytree(stage, aside)
            (aside / SEAL).unlink(missing_ok=True)  # its files are going to change
        aside.mkdir(parents=True, exist_ok=True)
        yield aside
        write_seal(aside)
        for file in aside.rglob("*"):
            open_by_umask(file)
            sync(file)
        gone = put_aside(stage)
        (aside / TRAINED).unlink(missing_ok=True)  # last: hashing and syncing weights may take minutes
        sync(aside)
        aside.rename(stage)
        sync(aside.parent)
        shutil.rmtree(gone, ignore_errors=True)
        ranks.wait()

    @_by_the_writer
    def sweep(self, name: str) -> None:
        """Remove what was kept beside a committed stage while it came about; "*" for every stage."""
        for kind in ("answers*.jsonl", "midway*", "training.jsonl"):
            for left in self.path.glob(f"{STAGES}/.{name}.{kind}"):
                remove(left) if left.is_dir() else left.unlink(missing_ok=True)

    def writing(self, name: str) -> Path:
        """The folder that a stage is written into until it is committed."""
        return self.stage(f".{name}.writing")

    @_by_the_writer
    def record_trained(self, name: str, seconds: float) -> None:
        """Say that what is in a stage's folder is its whole training, which is not done again."""
        folder = self.writing(name)
        for file in folder.rglob("*"):
            sync(file)
        write_trained(folder, seconds)

    def trained(self, name: str, say: Callable[[str], None]) -> Trained | None:
        """A stage's training, which is in its folder whole and not scored yet, or None.

        What was damaged since is said and removed: the stage is then trained again.
        """
        folder = self.writing(name)
        try:
            return read_trained(folder)
        except UserError as error:
            say(f"{name}: what its training left is damaged, and it is trained again ({error})")
            shutil.rmtree(folder)
            return None

    @_by_the_writer
    def remove_weights(self, name: str) -> None:
        """Remove a stage's weights and keep the rest."""
        from forgetmenot.models.weights import weight_folders  # torch, which most commands do without

        folders = weight_folders(self.stage(name))
        for folder in folders:
            remove(folder)
        if folders:
            forget_removed(self.stage(name))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object in a file of the run; None where there is none.

        Raises:
            UserError: If it is none, or another than the run wrote.
        """
        return read_json(self.path / name, dict)

    @_by_the_writer
    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file aside and rename it into place."""
        self.write_text(name, as_json(content))

    @_by_the_writer
    def write_text(self, name: str, text: str) -> None:
        """Write a text file aside and rename it into place; into the seal too where one lists it."""
        if name in SEALED or name.startswith(f"{RECEIPTS}/") or stage_of(self.path / name):
            write_sealed(self.path / name, text)
        else:
            write_text(self.path / name, text)

    @_by_the_writer
    def event(self, kind: str, **content: Any) -> None:
        """Append to events.jsonl: what happened, and when."""
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": kind, **content}, default=str
        )
        with (self.path / EVENTS).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    @_by_the_writer
    def record_time(self, stage: int, times: Mapping[str, float]) -> None:
        """Set a stage's entries of timing.json: {"train_s": [stage 0, stage 1, …], …}."""
        timing = read_timing(self.path)
        for name, seconds in times.items():
            row = timing.setdefault(name, [])
            row.extend([None] * (stage + 1 - len(row)))
            row[stage] = round(seconds, 3)
        self.write_json(TIMING, timing)


def _hold(lock: IO[str]) -> None:
    """Take a lock; twice, since `fmn watch` may be looking whether it is held.

    Raises:
        BlockingIOError: Another process has it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(GLANCE)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _unmade_if_unused(made: Sequence[Path]) -> Iterator[None]:
    """Remove folders that were just made, the innermost first, where what follows fails and wrote nothing."""
    try:
        yield
    except BaseException:
        if made and [file.name for file in made[0].iterdir()] == [LOCK]:
            (made[0] / LOCK).unlink()
            with suppress(OSError):  # another run has come to use one of them
                for folder in made:
                    folder.rmdir()
        raise


def begun_with(directory: RunDirectory) -> dict[str, Any]:
    """The identity that a run began with, by the writer's reading; nothing for a new run."""
    environment = ranks.agreed(lambda: directory.read_json(ENVIRONMENT))
    identity: Any = (environment or {}).get("identity", {})
    if not isinstance(identity, dict):
        raise damaged(directory.path / ENVIRONMENT, "its identity is no JSON object")
    return identity
