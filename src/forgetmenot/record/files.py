"""Files written whole: aside, flushed to the disk, renamed; and logs whose last line a kill may have cut."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from forgetmenot.errors import UserError

T = TypeVar("T")


@contextmanager
def written_whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a path to write a file to; when all went well it becomes the file, and is on the disk.

    The folder is made if it is not there. Where writing fails, what was there before stays.

    Args:
        path: The file.
        shared: Whether several processes may write it at the same time; the last one's stays.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file is to be written; move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing" if shared else f".{path.name}.writing")
    try:
        yield aside
        open_by_umask(aside)
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
            open_by_umask(file)
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
    write_text(path, as_json(content, indent=indent))


def as_json(content: Any, *, indent: int | None = 1) -> str:
    """The text of a JSON file.

    Raises:
        ValueError: The content has a number that is not finite.
    """
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path, content: Any, *, checked: bool = False) -> None:
    """Append one line of JSON to a log.

    Args:
        path: The log.
        content: Of the line.
        checked: Put a checksum behind it, after a tab, so that a line that was changed is known as one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(content, ensure_ascii=False)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\t{_checksum(line.encode())}\n" if checked else f"{line}\n")


def read_lines(
    path: Path, read: Callable[[Any], T] = lambda content: content, said: list[str] | None = None
) -> list[T]:
    """The lines of a log of JSON; a last one without an end was being written at a kill, and is removed.

    Args:
        path: The log.
        read: What makes something of a line's content; whatever it raises, the line is damaged.
        said: Takes a sentence about damaged lines, which are then removed. Without it they are an error.

    Raises:
        UserError: A whole line cannot be read.
    """
    if path.is_dir():
        if said is None:
            raise UserError(f"{path} is a folder, where a log belongs; move it away.")
        said.append(f"{path} was a folder where a log belongs, and is removed.")
        remove(path)
    if not path.exists():
        return []
    *whole, cut = path.read_bytes().split(b"\n")  # bytes: the cut may go through a letter
    kept: list[bytes] = []
    found: list[T] = []
    for number, line in enumerate(whole, start=1):
        try:
            found.append(read(_content(line)))
            kept.append(line)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            if said is None:
                raise UserError(
                    f"{path}, line {number} is damaged ({error}); remove the line, and what it held is asked "
                    "for again."
                ) from error
    if said is not None and len(kept) < len(whole):
        said.append(
            f"{path}: {len(whole) - len(kept)} of {len(whole)} lines are damaged and dropped; what they held "
            "is computed again."
        )
    if cut or len(kept) < len(whole):
        with written_whole(path) as aside:
            aside.write_bytes(b"".join(line + b"\n" for line in kept))
    return found


def _content(line: bytes) -> Any:
    """A line of a log, held against its checksum where it has one."""
    text, tab, checksum = line.rpartition(b"\t")
    if not tab or len(checksum) != len(_checksum(b"")):
        return json.loads(line)
    if checksum != _checksum(text).encode():
        raise ValueError("its checksum is another")
    return json.loads(text)


def _checksum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"


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


def open_by_umask(path: Path) -> None:
    """Let all read and write a file whom the umask allows it; libraries write theirs for its owner alone."""
    if not path.is_file():
        return
    mask = os.umask(
        0o077
    )  # it cannot be read otherwise; another thread's file may be too private, not too open
    os.umask(mask)
    mode = path.stat().st_mode & 0o777
    wanted = mode | (0o666 & ~mask)
    if wanted != mode:
        path.chmod(wanted)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
