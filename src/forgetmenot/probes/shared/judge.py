"""Judges: a model behind an OpenAI-compatible endpoint, or a local one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from forgetmenot.engine import ranks
from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.models.settings import ModelSettings
from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings
from forgetmenot.synthesis.responder import LocalResponder, Responder

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "endpoint" if value.keys() & EndpointSettings.model_fields.keys() else "model"
    return "endpoint" if isinstance(value, EndpointSettings) else "model"


JudgeSettings = Annotated[
    Annotated[EndpointSettings, Tag("endpoint")] | Annotated[ModelSettings, Tag("model")],
    Discriminator(_kind),
]

LOCAL_REPLY = 512  # tokens that a local judge may write, greedily


def make_judge(settings: JudgeSettings) -> Responder:
    """The judge of a config; an endpoint is not asked yet, and a model not loaded yet.

    Raises:
        UserError: If the endpoint's key is not set, or a model here would have to work in several processes.
    """
    if isinstance(settings, EndpointSettings):
        return Endpoint(settings)
    if ranks.world_size() > 1:
        raise UserError(
            "judge: a model that is loaded here works in one process; put it behind an endpoint, or "
            "leave out --num-processes."
        )
    name = settings.name + (f"@{settings.revision}" if settings.revision else "")
    return LocalResponder(name, partial(_loaded, settings), Decoding(LOCAL_REPLY))


def _loaded(settings: ModelSettings) -> Learner:
    import torch

    from forgetmenot.engine.learner import Learner
    from forgetmenot.engine.pack import node_budget
    from forgetmenot.models.load import load_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(settings, trainable=False, device=device)
    budget = node_budget(device.type, "sdpa", torch.get_num_threads())
    return Learner(loaded.model, loaded.tokenizer, budget)
