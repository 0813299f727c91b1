"""Whose a directory is: nothing is written into one that holds what no command of ours wrote."""

import json
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from forgetmenot.errors import UserError
from forgetmenot.record.layout import CONFIG, ENVIRONMENT
from forgetmenot.tasks.yaml_file import parse_yaml

Kind = Literal["run", "study", "check", "prompts", "receipts", "synthesize", "limits", "embed"]
"""What a directory holds."""

LOCK = ".lock"
_MARK = "forgetmenot "

# What tells a directory without a mark: an older one, or a copy without its hidden files. A file that a user
# wrote by hand has not all of these keys.
_KNOWN_BY: dict[Kind, dict[str, set[str]]] = {
    "run": {
        ENVIRONMENT: {"identity"},
        CONFIG: {"model", "tasks", "method", "adapter", "training", "evaluation", "seed", "output"},
    },
    "study": {
        "study.json": {"version", "grid", "runs", "cells"},
        "study.yaml": {"name", "base", "grid", "resources", "published", "output"},
    },
    "check": {"check.json": {"version", "status", "base", "tuned", "verdicts"}},
    "prompts": {"prompts.json": {"version", "model_revision", "tasks"}},
    "receipts": {"receipts.json": {"version", "asked", "rows"}},
    "synthesize": {"synthesis.json": {"version", "funnel", "settings"}},
    "limits": {"asked.json": {"settings", "runs", "hold_out"}},
    "embed": {"embeddings.json": {"version", "model_revision", "similarity", "transfer"}},
}


def check_ours(path: Path, kind: Kind) -> None:
    """See that a directory is empty, not there, or of a kind that a command of ours wrote.

    Raises:
        UserError: If it holds anything else.
    """
    if not path.is_dir():
        return
    try:
        there = sorted(file.name for file in path.iterdir())
    except OSError as error:
        raise UserError(f"output: {path} cannot be read ({error.strerror}).") from error
    if not there or (marked := _marked(path)) == kind:
        return
    if marked:
        raise UserError(f"output: {path} holds what `fmn {marked}` wrote; give `fmn {kind}` another folder.")
    if there == [LOCK] and _is_file(path / LOCK) and not (path / LOCK).stat().st_size:
        return  # a command was killed before it had marked the folder
    if any(_has_keys(path / name, keys) for name, keys in _KNOWN_BY[kind].items()):
        return
    fresh = ", not with --fresh either" * (kind == "run")
    raise UserError(
        f"output: {path} holds {there[0]!r} and is no folder of `fmn {kind}`; nothing in it is touched"
        f"{fresh}. Give a new or empty folder."
    )


def mark(lock: IO[str], kind: Kind) -> None:
    """Write into a directory's lock whose it is, so that it is known from the first file on.

    Args:
        lock: Open for appending: it is never empty again.
        kind: What the directory holds.
    """
    if lock.tell() == 0:
        lock.write(f"{_MARK}{kind}\n")
        lock.flush()


def _marked(path: Path) -> str | None:
    if not _is_file(path / LOCK):
        return None
    with (path / LOCK).open(encoding="utf-8", errors="replace") as lock:
        first = lock.readline(100)
    return first.removeprefix(_MARK).strip() if first.startswith(_MARK) else None


def _has_keys(path: Path, keys: set[str]) -> bool:
    """Whether a file is a map with at least these keys."""
    if not _is_file(path):
        return False
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and keys <= content.keys()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
