"""Encoded examples on disk, so that the same examples are tokenized once, not once for each run.

They are under `$FORGETMENOT_CACHE`, or `forgetmenot` under `$XDG_CACHE_HOME` or `~/.cache`, one file for each
set of examples; the folder may be removed at any time. It is kept under `MOST_BYTES` by removing what was not
used for longest. Where none is named and there is no home that can be written, none is kept.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.paths import cache_folder
from forgetmenot.prompting.encoder import Encoder
from forgetmenot.prompting.examples import EncodedExamples
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.record.files import written_whole
from forgetmenot.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_BYTES = 2_000_000_000
FORMAT = 6
"""Raised whenever the encoder gives other tokens, or the files are laid out otherwise."""


def encode_cached(
    task: Task,
    prompt: Prompt,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    examples: Sequence[Example],
    reserved: int | None = None,
) -> EncodedExamples:
    """Encode examples of a task, or read what an earlier call with the same arguments left on disk.

    Raises:
        UserError: As `Encoder`, or the folder cannot be written.
    """
    encoder = Encoder(task, prompt, tokenizer, max_length, reserved)  # what it refuses is refused in any case
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return encoder.encode_all(examples)  # a tokenizer in Python does not say all that shapes its tokens
    folder = cache_folder()
    if folder is None:
        return encoder.encode_all(examples)
    file = folder / f"{_key(task, prompt, tokenizer, (max_length, reserved), examples)}.npz"
    found = _read(file, [example.id for example in examples])
    if found is None:
        found = encoder.encode_all(examples)
        _write(file, found)
    return found


def why_no_cache() -> str | None:
    """A sentence where nothing is kept on disk; None where it is."""
    if cache_folder() is not None:
        return None
    return (
        "Encoded examples are not kept for later runs: there is no home folder that can be written; "
        "name a folder in FORGETMENOT_CACHE to keep them."
    )


def _key(
    task: Task,
    prompt: Prompt,
    tokenizer: "PreTrainedTokenizerBase",
    lengths: tuple[int, int | None],
    examples: Sequence[Example],
) -> str:
    """A hash of all that the tokens depend on."""
    digest = hashlib.sha256()
    about = [FORMAT, *_versions(), lengths]
    about += [task.name, task.kind, task.labels, prompt.hash]
    about += [type(tokenizer).__name__, tokenizer.special_tokens_map, tokenizer.chat_template]
    about += [tokens_of(tokenizer).digest]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    for example in examples:
        digest.update(repr((example.id, example.fields, example.label, example.target)).encode())
    return digest.hexdigest()[:32]


@cache
def _versions() -> tuple[str, ...]:
    """Of all that has a hand in the tokens; importlib reads a package's whole description for each."""
    return version("forgetmenot"), version("tokenizers"), version("transformers")


def _read(file: Path, ids: Sequence[str]) -> EncodedExamples | None:
    """What a file holds; None where there is none, or a damaged one: the zip's checksums say so."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = EncodedExamples(ids, dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    with suppress(OSError):  # another user's, or a folder that is only read
        os.utime(file)
    return found


def _write(file: Path, encoded: EncodedExamples) -> None:
    """Write the file whole, then make room."""
    try:
        with written_whole(file, shared=True) as aside, aside.open("wb") as stream:
            np.savez(stream, **encoded.arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UserError(
            f"The cache of encoded examples {file.parent} cannot be written ({error.strerror}); "
            "make room there, or name another folder in FORGETMENOT_CACHE."
        ) from error
    _make_room(file)


_seen: dict[Path, tuple[int, int]] = {}
"""By folder: the bytes that lay there when this process last looked, and those that it has written since."""


def _make_room(keep: Path) -> None:
    """Remove the files that were not used for longest, but the one just written.

    The folder is listed only when an eighth of what room it had is written (others write too): to list it for
    each file would take as long as the square of their number. A full one is cleared a tenth below the most.
    """
    folder, size = keep.parent, keep.stat().st_size
    held, written = _seen.get(folder, (MOST_BYTES, 0))
    if 8 * (written + size) < MOST_BYTES - held:
        _seen[folder] = held, written + size
        return
    held = kept = 0
    with suppress(FileNotFoundError):  # another process makes room as well
        stats = {one: one.stat() for one in folder.glob("*.npz")}
        full = sum(stat.st_size for stat in stats.values()) > MOST_BYTES
        for one, stat in sorted(stats.items(), key=lambda pair: pair[1].st_mtime, reverse=True):
            held += stat.st_size
            if full and held > 0.9 * MOST_BYTES and one != keep:
                one.unlink()
            else:
                kept = held
    _seen[folder] = kept, 0
