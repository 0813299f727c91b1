"""The seal of a folder: the size and SHA-256 of its files, by which a file that was changed is known.

    {"version": 1, "files": {"scores.json": [{"size": 412, "sha256": "…"}], …}, "sha256": "…"}

A stage's folder is sealed as a whole when it is committed. Of the run's own folder the seal lists the files
that results are read from or depend on, each written by `written_sealed`; so do the folders
of probes that keep what the base model answered. A file has two entries while another
content is on its way into it, of which null stands for no file. A folder without a seal was written by a
version that knew none, and is read as it is.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from forgetmenot.record.damage import damaged, stage_of, stages_in
from forgetmenot.record.files import as_json, write_json, written_whole
from forgetmenot.record.layout import SEAL, STAGES, TRAINED

T = TypeVar("T", bound=dict[str, Any] | list[Any])
Entries = list[dict[str, Any] | None]

VERSION = 1
UNSEALED = (SEAL, TRAINED, "README.md")
"""What no seal lists: itself, what goes when a stage is committed, and PEFT's page about an adapter, which
nothing reads and people write into."""


def write_seal(folder: Path) -> None:
    """Seal a folder as it is; in the folder of a stage that is not committed yet."""
    content = _sealed({name: [entry] for name, entry in entries(folder).items()})
    (folder / SEAL).write_text(as_json(content), encoding="utf-8")


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The size and SHA-256 of each file in a folder, by its path from there."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in UNSEALED]
    return {file.relative_to(folder).as_posix(): _entry(file) for file in files}


def differing(folder: Path, known: dict[str, dict[str, Any]]) -> list[str]:
    """The files that are not as `entries` found them; others may have come."""
    return [
        name
        for name, entry in known.items()
        if not (folder / name).is_file() or _entry(folder / name) != entry
    ]


@contextmanager
def written_sealed(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, as `written_whole` does; what it becomes is in its folder's seal.

    A kill at any moment leaves both true. The folder of a stage that has no seal gets none.
    """
    files = _files(path.parent)
    seals = files is not None or not stage_of(path)
    files = files or {}
    with written_whole(path) as aside:
        yield aside
        new = [_entry(aside)]
        if seals:
            before = files.get(path.name) or [_entry(path) if path.is_file() else None]
            _write(path.parent, {**files, path.name: [*before, *new]})
    if seals:
        _write(path.parent, {**files, path.name: [*new]})


def write_sealed(path: Path, text: str) -> None:
    """Write a text file into a folder and its seal."""
    with written_sealed(path) as aside:
        aside.write_text(text, encoding="utf-8")


def forget(path: Path) -> None:
    """Take a file out of its folder's seal, before it is removed."""
    files = _files(path.parent) or {}
    if files.pop(path.name, None):
        _write(path.parent, files)


def forget_removed(stage: Path) -> None:
    """Take the folders out of a stage's seal that are no longer there."""
    files = _files(stage)
    if files is not None:
        _write(stage, {name: one for name, one in files.items() if (stage / name).exists()})


def read_checked(path: Path) -> bytes | None:
    """The content of a file, held against its folder's seal; None where there is none and should be none.

    Raises:
        UserError: It is not what was written there, or cannot be read.
    """
    content, found = _read(path), None
    if content is not None:
        found = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _compare(path, path.name, _files(path.parent), found)
    return content


def read_json(path: Path, kind: type[T]) -> T | None:
    """A JSON file, checked; None where there is none and should be none.

    Raises:
        UserError: It is not what was written there, or no JSON of that kind.
    """
    content = read_checked(path)
    return None if content is None else parse(path, content, kind)


def parse(path: Path, content: bytes, kind: type[T]) -> T:
    """Read the content of a file as JSON.

    Raises:
        UserError: It is none of that kind.
    """
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError too
        raise damaged(path, f"it is not JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(found, kind):
        raise damaged(path, f"it holds no JSON {'object' if kind is dict else 'list'}")
    return found


def check_stage(stage: Path) -> None:
    """Hold a stage's files against its seal, all but weights: `check_file` and `check_folder` do that.

    Raises:
        UserError: One is not what was written there.
    """
    for name in _files(stage) or {}:
        if "/" not in name and not name.endswith(".safetensors"):
            check_file(stage / name)


def check_file(path: Path, seal: Path | None = None) -> None:
    """Hold a file that may be large against a seal, which is in its own folder unless it says otherwise.

    Raises:
        UserError: It is not what was written there.
    """
    folder = seal or path.parent
    if path.is_dir():
        raise damaged(path, "a folder stands in its place")
    files = _files(folder)
    if files is not None:
        try:
            found = _entry(path) if path.exists() else None
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from error
        _compare(path, path.relative_to(folder).as_posix(), files, found)


def check_folder(folder: Path) -> None:
    """Hold a folder of weights against the seal of the stage that it is in: nothing changed, nothing added.

    Raises:
        UserError: It is not what was written there.
    """
    files = _files(folder.parent)
    if files is None:
        return
    listed = [folder.parent / name for name in files if name.startswith(f"{folder.name}/")]
    there = [one for one in folder.rglob("*") if one.is_file() and one.name not in UNSEALED]
    for path in sorted({*listed, *there}):
        check_file(path, folder.parent)


def unsealed(run_dir: Path) -> str | None:
    """A sentence that names the stages without a seal; None if there are none."""
    names = [name for name in stages_in(run_dir / STAGES) if not (run_dir / STAGES / name / SEAL).exists()]
    if not names:
        return None
    which = f"stage {names[0]} was" if len(names) == 1 else f"stages {', '.join(names)} were"
    return (
        f"{which[0].upper()}{which[1:]} written before stages were sealed and cannot be checked for damage."
    )


def _compare(path: Path, name: str, files: dict[str, Entries] | None, found: dict[str, Any] | None) -> None:
    if files is None or name == SEAL:
        return
    known = files.get(name)
    if known is None:
        if found is not None and stage_of(path):
            raise damaged(path, "the run did not write it")
        return
    if found in known:
        return
    if found is None:
        raise damaged(path, "it is missing")
    sizes = [one["size"] for one in known if one is not None]
    if found["size"] not in sizes:
        raise damaged(path, f"it has {found['size']:,} bytes, and was written with {sizes[-1]:,}")
    raise damaged(path, "it is not what the run wrote (its SHA-256 is another)")


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"size": stream.tell(), "sha256": digest}


def _files(folder: Path) -> dict[str, Entries] | None:
    """What a folder's seal lists; None where it has none."""
    path = folder / SEAL
    if not path.exists():
        return None
    content = parse(path, _read(path) or b"", dict)
    files: Any = content.get("files")
    if content.get("version") != VERSION or not isinstance(files, dict):
        raise damaged(path, f"it is no seal of version {VERSION}")
    if content.get("sha256") != digest_of(files):
        raise damaged(path, "its own SHA-256 is another")
    return files


def _read(path: Path) -> bytes | None:
    if path.is_dir():
        raise damaged(path, "a folder stands in its place")
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error


def _write(folder: Path, files: dict[str, Entries]) -> None:
    write_json(folder / SEAL, _sealed(files))


def _sealed(files: dict[str, Entries]) -> dict[str, Any]:
    return {"version": VERSION, "files": files, "sha256": digest_of(files)}


def digest_of(content: dict[str, Any]) -> str:
    """The SHA-256 of plain data, however its keys are ordered."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
