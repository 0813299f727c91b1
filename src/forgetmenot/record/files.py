"""Files written whole: aside, flushed to the disk, renamed; and logs whose last line a kill may have cut."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError


@contextmanager
def written_whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a path to write a file to; when all went well it becomes the file, and is on the disk.

    The folder is made if it is not there. Where writing fails, what was there before stays.

    Args:
        path: The file.
        shared: Whether several processes may write it at the same time; the last one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing" if shared else f".{path.name}.writing")
    try:
        yield aside
        sync(aside)
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give a folder to write into; when all went well it becomes `path`, which is not there yet, or empty.

    Raises:
        UserError: The folder cannot be made.
    """
    aside = path.absolute().with_name(f".{path.absolute().name}.writing")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror}); give another directory.") from error
    try:
        yield aside
        for file in (*aside.rglob("*"), aside):
            sync(file)
        if path.is_dir():
            path.rmdir()
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(aside.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write a JSON file whole.

    Raises:
        ValueError: The content has a number that is not finite.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, content: Any) -> None:
    """Append one line of JSON to a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(content, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[Any]:
    """The lines of a log of JSON; a last one without an end was being written at a kill, and is removed.

    Raises:
        ValueError: A whole line is no JSON.
    """
    if not path.is_file():
        return []
    *whole, cut = path.read_bytes().split(b"\n")  # bytes: the cut may go through a letter
    if cut:
        with written_whole(path) as aside:
            aside.write_bytes(b"".join(line + b"\n" for line in whole))
    return [json.loads(line) for line in whole]


def remove(folder: Path) -> None:
    """Remove a folder, which goes at once: a kill leaves no half of it to be read."""
    shutil.rmtree(put_aside(folder), ignore_errors=True)


def put_aside(folder: Path) -> Path:
    """Give a folder, if it is there, a name that is never read, and return that; there may be no folder."""
    gone = folder.with_name(f".{folder.name}.gone")
    if folder.exists():
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
    return gone


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
