"""The folder of a command of `fmn embed`: what it holds, and what another call may not replace."""

from collections.abc import Mapping
from typing import Any, Literal

from forgetmenot.config import RunConfig
from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.errors import UserError
from forgetmenot.runs.directory import RunDirectory

RESULTS, ADAPTER = "embeddings.json", "adapter"


def request(config: RunConfig, settings: EmbeddingSettings, **more: Any) -> dict[str, Any]:
    """What was asked for, by which one call is told from another."""
    training = config.training.model_dump(mode="json")
    return {
        "model": config.model.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "training": {key: value for key, value in training.items() if not key.startswith("save_every")},
        **more,
    }


def refuse_other(
    directory: RunDirectory,
    kind: Literal["figures", "an export", "a tuning"],
    wanted: Mapping[str, Any],
) -> None:
    """See that a directory holds nothing but what the same call has left there, which is made again.

    Raises:
        UserError: It does.
    """
    content = directory.read_json(RESULTS) or {}
    if (directory.path / ADAPTER).is_dir():
        there = "a tuning"
    elif content:
        there = "figures" if content.get("similarity") or content.get("transfer") else "an export"
    else:
        return
    if there != kind:
        raise UserError(
            f"{directory.path} holds {there} already, which would be lost; name another directory."
        )
    before = content.get("request", {})
    differing = [key for key in wanted if before.get(key) != wanted[key]]
    if content and differing:
        raise UserError(
            f"{directory.path} holds {there} already, made otherwise ({', '.join(differing)}), which would "
            "be lost; name another directory, or remove it."
        )
