"""The revision of a model: a hub's commit, or a hash of all that shapes the model of a directory."""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from forgetmenot.errors import UserError
from forgetmenot.models.settings import ModelSettings

SHAPING = (
    *("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.py", "vocab.txt", "merges.txt"),
    *("*.tiktoken", "[!.]*/**/*.py", "additional_chat_templates/*.jinja"),
)
"""The files of a model's directory on which its numbers depend: weights, configuration, tokenizer, code."""

_SHA256 = re.compile("[0-9a-f]{64}")


def revision_of(settings: ModelSettings, source: str, options: dict[str, Any]) -> str:
    """The commit of a hub repository, by the place of its files in the cache; a hash for a directory.

    Raises:
        UserError: Weights in the hub's cache are not those that were downloaded.
    """
    if Path(source).is_dir():
        return weights_fingerprint(Path(source))
    config = cached_file(source, "config.json", revision=options["revision"])
    for file in sorted(Path(config).parent.iterdir()):
        blob = file.resolve()  # large files are called by their SHA-256 there
        if _SHA256.fullmatch(blob.name) and _sha256(blob, *_stamp(blob)) != blob.name:
            raise UserError(
                f"{file}, of model {settings.name!r}, is not what the hub gave (its SHA-256 is another): it "
                f"was damaged or changed in the cache. Delete {blob} and {file}; they are downloaded again."
            )
    commit: str = extract_commit_hash(config, None)
    return commit


def weights_fingerprint(folder: Path) -> str:
    """A hash over all of a directory that shapes the model and its tokens."""
    return hash_of(sorted(file for pattern in SHAPING for file in folder.glob(pattern)))


def hash_of(files: Iterable[Path]) -> str:
    """The first 16 hex digits of the SHA-256 of files and their names."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache
def _sha256(file: Path, size: int, time: int) -> str:
    """Computed once as long as size and time of the file stay: a run loads its base for every stage."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
