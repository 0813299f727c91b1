"""A run's directory: its files, none of which is ever read half-written."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.record.files import put_aside, remove, sync, write_json, write_text
from forgetmenot.record.layout import (
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    PROBES,
    READINGS,
    REPORT,
    RESULTS,
    SCORES,
    STAGES,
    TIMING,
    stage_folder,
)
from forgetmenot.runs.ownership import LOCK, Kind, check_ours, mark

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
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path} is in use by another process; wait for it, or choose another output."
                ) from error
            mark(lock, kind)
            for gone in self.path.glob("stages/.*.gone"):  # a commit was killed while it replaced a stage
                stage = self.stage(gone.name.removeprefix(".").removesuffix(".gone"))
                if stage.exists():
                    shutil.rmtree(gone, ignore_errors=True)
                else:
                    gone.rename(stage)
            yield

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
        (self.path / RESULTS).unlink(missing_ok=True)
        self.write_text(CONFIG, config)

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return stage_folder(self.path, name)

    def is_committed(self, name: str) -> bool:
        """Whether a stage is finished: trained, scored and on disk."""
        return (self.stage(name) / SCORES).is_file()

    @contextmanager
    def committing(self, name: str) -> Iterator[Path]:
        """Give a folder to write a stage into; when all went well it becomes the stage's folder.

        What an earlier commit of the stage left there is in it already. A process that does not write gets
        a folder that is thrown away, and goes on when the stage's is in its place.
        """
        if not ranks.writes():
            with tempfile.TemporaryDirectory() as unread:
                yield Path(unread)
            ranks.wait()
            return
        stage, aside = self.stage(name), self.stage(f".{name}.writing")
        if aside.exists():
            shutil.rmtree(aside)
        if stage.exists():
            shutil.copytree(stage, aside)
        aside.mkdir(parents=True, exist_ok=True)
        yield aside
        for file in aside.rglob("*"):
            sync(file)
        sync(aside)
        gone = put_aside(stage)
        aside.rename(stage)
        sync(aside.parent)
        shutil.rmtree(gone, ignore_errors=True)
        ranks.wait()

    @_by_the_writer
    def remove_weights(self, name: str) -> None:
        """Remove a stage's weights and keep the rest."""
        from forgetmenot.models.weights import weight_folders  # torch, which most commands do without

        for folder in weight_folders(self.stage(name)):
            remove(folder)

    def read_json(self, name: str) -> Any:
        """A JSON file of the run; None where there is none.

        Raises:
            UserError: If it is no JSON.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); start the run over with --fresh.") from error

    @_by_the_writer
    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file aside and rename it into place."""
        write_json(self.path / name, content)

    @_by_the_writer
    def write_text(self, name: str, text: str) -> None:
        """Write a text file aside and rename it into place."""
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
        timing: dict[str, list[float | None]] = self.read_json(TIMING) or {}
        for name, seconds in times.items():
            row = timing.setdefault(name, [])
            row.extend([None] * (stage + 1 - len(row)))
            row[stage] = round(seconds, 3)
        self.write_json(TIMING, timing)


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
    identity: dict[str, Any] = (environment or {}).get("identity", {})
    return identity
