"""States of frozen layers on disk: one file a set, written whole, held by a checksum, read where it lies.

A file is a header of one block, JSON that says what follows, and the rows of a matrix. It is mapped into
memory, so that a run holds only what it reads. The folder is kept under a bound by removing what was not used
for longest; it may be removed at any time.
"""

import json
import os
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from forgetmenot.record.files import written_whole

FORMAT = 1
BLOCK = 4096
ENDING = ".states"
BYTES = 1 << 24  # that are read at a time
LEFT_OVER_S = 3600  # since a file was last written to, which nobody is writing any more
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StateFiles:
    """A folder of states.

    Attributes:
        folder: Where they lie.
        most: The most bytes of all of them.
    """

    folder: Path
    most: int

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether this process may read or write a file now; not while another one writes it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{key}.lock")
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError:  # no folder can be made, or no lock: alone, then
            yield True
            return
        try:
            yield True
        finally:
            lock.release()

    def has(self, key: str) -> bool:
        """Whether there is a file, whole or not."""
        return self._path(key).is_file()

    def read(self, key: str, rows: int, said: list[str]) -> Tensor | None:
        """The states of a file; None if there is none, or it is not whole, which is said."""
        path = self._path(key)
        try:
            with path.open("rb") as stream:
                header = json.loads(stream.read(BLOCK))
                shape, dtype = header["shape"], DTYPES[header["dtype"]]
                if (header["format"], header["key"], shape[0]) != (FORMAT, key, rows):
                    raise ValueError("it is another's")
                if path.stat().st_size != BLOCK + shape[0] * shape[1] * dtype.itemsize:
                    raise ValueError("it has another length than it says")
                if _checksum(stream) != header["checksum"]:
                    raise ValueError("its checksum does not fit")
            states = _mapped(path, shape, dtype)
            with suppress(OSError):  # another user's, or a folder that is only read
                os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            said.append(f"{path} is damaged ({error}); it is made anew.")
            return None
        return states

    def write(self, key: str, rows: int, parts: Iterable[Tensor], said: list[str]) -> Tensor | None:
        """Write states as they come, and read them from there; None where that fails, which is said."""
        path = self._path(key)
        try:
            self._remove_left_over()
            with written_whole(path, shared=True) as aside, aside.open("wb") as stream:
                stream.write(b" " * BLOCK)
                checksum, shape, dtype = 0, [rows, 0], ""
                for part in parts:
                    if not dtype:
                        shape[1], dtype = part.shape[1], str(part.dtype).removeprefix("torch.")
                        self._make_room(part.shape[1] * part.itemsize * rows)
                    data = part.contiguous().view(torch.uint8).numpy().data
                    checksum = zlib.crc32(data, checksum)
                    stream.write(data)
                header = {"format": FORMAT, "key": key, "dtype": dtype, "shape": shape, "checksum": checksum}
                stream.seek(0)
                stream.write(json.dumps(header).encode().ljust(BLOCK))
            return _mapped(path, shape, DTYPES[dtype])
        except OSError as error:
            sentence = (
                f"The states of frozen layers cannot be kept in {self.folder} ({error.strerror}); they are "
                "held in memory, and the next run computes them again."
            )
            said += [sentence] if sentence not in said else []
            return None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{ENDING}"

    def _remove_left_over(self) -> None:
        """Remove what runs were writing that are no more: a live one writes all the time."""
        for one in self.folder.glob(f".*{ENDING}.*.writing"):
            with suppress(OSError):
                if time.time() - one.stat().st_mtime > LEFT_OVER_S:
                    one.unlink()

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest, until a file of this size fits; who reads one keeps it."""
        held = size
        with suppress(FileNotFoundError):  # another process makes room as well
            stats = {
                one: one.stat() for one in self.folder.glob(f"*{ENDING}") if not one.name.startswith(".")
            }
            for one, stat in sorted(stats.items(), key=lambda pair: pair[1].st_mtime, reverse=True):
                held += stat.st_size
                if held > self.most:
                    one.unlink()


def _mapped(path: Path, shape: list[int], dtype: torch.dtype) -> Tensor:
    """The rows of a file, which are read when they are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch's, that they cannot be written
        data = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="r", offset=BLOCK))
    return data.view(dtype).view(shape)


def _checksum(stream: Any) -> int:
    checksum = 0
    while block := stream.read(BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum
