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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.paths import cache_folder
from forgetmenot.prompting.encoder import Encoder
from forgetmenot.prompting.examples import EncodedExamples
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.record.files import written_whole
from forgetmenot.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_BYTES = 2_000_000_000
FORMAT = 5
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
    about = [FORMAT, version("forgetmenot"), version("tokenizers"), version("transformers"), lengths]
    about += [task.name, task.kind, task.labels, prompt.hash]
    about += [type(tokenizer).__name__, tokenizer.special_tokens_map, tokenizer.chat_template]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for example in examples:
        digest.update(repr((example.id, example.fields, example.label, example.target)).encode())
    return digest.hexdigest()[:32]


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


def _make_room(keep: Path) -> None:
    """Remove the files that were not used for longest, but the one just written."""
    held = 0
    with suppress(FileNotFoundError):  # another process makes room as well
        stats = {one: one.stat() for one in keep.parent.glob("*.npz")}
        for one, stat in sorted(stats.items(), key=lambda pair: pair[1].st_mtime, reverse=True):
            held += stat.st_size
            if held > MOST_BYTES and one != keep:
                one.unlink()
