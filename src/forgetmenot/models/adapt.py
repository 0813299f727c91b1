"""The table of the kinds of adapters, and a stage's two calls to the chosen one."""

from typing import Any

from forgetmenot.models.adapters.bridge import BRIDGE
from forgetmenot.models.adapters.full import FULL
from forgetmenot.models.adapters.kind import AdapterKind
from forgetmenot.models.adapters.lora import LORA
from forgetmenot.models.adapters.prompt import PROMPT
from forgetmenot.models.settings import AdapterSettings, kinds_of_others

ADAPTERS: dict[str, AdapterKind] = {"lora": LORA, "full": FULL, "prompt": PROMPT, "bridge": BRIDGE}


def known_adapters() -> dict[str, AdapterKind]:
    """The kinds of this package and those that others give through entry points, by name."""
    return {**{name: point.load() for name, point in kinds_of_others().items()}, **ADAPTERS}


def kind_of(settings: AdapterSettings) -> AdapterKind:
    """The kind of adapter that settings name."""
    if settings.kind in ADAPTERS:
        return ADAPTERS[settings.kind]
    kind: AdapterKind = kinds_of_others()[settings.kind].load()
    return kind


def adapt(model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
    """Make the right parameters learn for a stage; returns the model to train.

    Args:
        model: The plain model, or what the stage before left.
        settings: What learns.
        stage: The stage's number, from 1.
        seed: For the initial values of an adapter or a prompt.

    Raises:
        UserError: If the settings do not fit the model.
    """
    return kind_of(settings).adapt(model, settings, stage, seed)


def finish_stage(model: Any, settings: AdapterSettings) -> Any:
    """After a stage's training: with `merge`, the adapter becomes part of the weights."""
    return kind_of(settings).finish(model, settings)
