"""A kept baseline: what the base model answered, so that a check need not ask it again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.record.files import written_whole
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.runs.directory import RunDirectory

Noise = Mapping[str, Mapping[str, AskedAgain]]
"""What differs when the base is asked again: in another order (`again`), with a zero-delta adapter
(`control`)."""

VERSION = 3


def asked(scored: Sequence[ScoredTask], identity: Mapping[str, Any]) -> dict[str, Any]:
    """All that answers depend on beside the tuned side: the weights, the words, and how it is computed.

    Args:
        scored: The tasks, as they are put to the base model.
        identity: The session's, with the weights' hash.
    """
    return {
        "model": identity["title"],
        "weights": identity["weights"],
        "computing": {key: identity[key] for key in ("device", "precision", "dtype", "quantization")},
        "tasks": {
            one.task.name: {
                "metric": one.task.metric,
                "prompt": one.prompt.hash,
                "chat": one.prompt.chat,
                "examples": len(one.examples),
                "data": one.data,
                "cut": dict(one.encoded.truncated),
                "how": json.loads(json.dumps(one.described)),
            }
            for one in scored
        },
    }


def check_baseline(path: Path) -> None:
    """See that a baseline that is not there can be written, before hours of asking.

    Raises:
        UserError: If it cannot be.
    """
    if path.is_dir():
        raise UserError(f"--baseline: {path} is a folder; name a file.")
    if not path.exists():
        try:
            RunDirectory(path).check_writable()
        except UserError as error:
            raise UserError(f"--baseline: {str(error).removeprefix('output: ')}") from error


def write_baseline(
    path: Path,
    about: Mapping[str, Any],
    answers: Mapping[str, Predictions],
    noise: Noise,
) -> None:
    """Write a baseline whole.

    Raises:
        UserError: If it cannot be written there.
    """
    content = {
        "version": VERSION,
        "about": dict(about),
        "noise": noise,
        "answers": {task: {**asdict(one), "routed": dict(one.routed)} for task, one in answers.items()},
    }
    try:
        with written_whole(path, shared=True) as aside:  # two checks may find that it is not there
            aside.write_text(
                json.dumps({**content, "sha256": _digest(content)}, allow_nan=False), encoding="utf-8"
            )
    except OSError as error:
        raise UserError(f"--baseline: {path} cannot be written ({error.strerror}).") from error


def read_baseline(
    path: Path, about: Mapping[str, Any], scored: Sequence[ScoredTask]
) -> tuple[dict[str, Predictions], Noise]:
    """Read what `write_baseline` wrote, for the same base, words and ways of computing.

    Args:
        path: The file.
        about: What the check would ask; see `asked`.
        scored: The tasks.

    Raises:
        UserError: If it is no baseline, or one of something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, said = content["version"], content.pop("sha256", None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--baseline: {path} is no baseline of this program ({type(error).__name__}); name a new file, "
            "which the check writes, or remove it."
        ) from error
    if version != VERSION:
        raise UserError(f"--baseline: {path} has version {version!r}; this program reads {VERSION}.")
    if said != _digest(content):
        raise UserError(
            f"--baseline: {path} was changed after it was written; remove it to score the base model anew."
        )
    kept, noise = content["about"], content["noise"]
    different = [key for key in about if kept.get(key) != about[key]]
    if different:
        key = different[0]
        raise UserError(
            f"--baseline: {path} was made with another {_named(key, kept.get(key), about[key])}; remove it "
            "to score the base model anew, or name another file."
        )
    answers = {
        task: Predictions(**{**one, "labels": None if one["labels"] is None else tuple(one["labels"])})
        for task, one in content["answers"].items()
    }
    for one in scored:
        if answers[one.task.name].ids != [example.id for example in one.examples]:
            raise UserError(
                f"--baseline: {path} has other examples of {one.task.name}; remove it to score them anew."
            )
    return {one.task.name: answers[one.task.name] for one in scored}, noise


def _digest(content: Any) -> str:
    """Of a baseline's content, which nobody should have changed since it was written."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _named(key: str, before: Any, now: Any) -> str:
    """What differs, in words."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return f"{key} (it was {before!r}, and is {now!r})"
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    one = names[0]
    if key == "tasks" and one in before and one in now:
        inner = next(part for part in now[one] if before[one].get(part) != now[one][part])
        return f"{inner} of task {one} (it was {before[one].get(inner)!r}, and is {now[one][inner]!r})"
    if key == "tasks":
        return f"panel of tasks ({one} is in one and not in the other)"
    return f"{one} (it was {before.get(one)!r}, and is {now.get(one)!r})"
