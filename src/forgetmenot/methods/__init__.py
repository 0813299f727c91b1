"""Ways not to forget: the protocol, and one file for each method."""

from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.methods.adapter_per_task import AdapterPerTask
from forgetmenot.methods.freeze import Freeze
from forgetmenot.methods.joint import Joint
from forgetmenot.methods.method import Method, Options, Stage
from forgetmenot.methods.moe_lora import MoeLora
from forgetmenot.methods.o_lora import OLora
from forgetmenot.methods.osf import Osf
from forgetmenot.methods.sequential import Sequential
from forgetmenot.methods.single import Single

METHODS: dict[str, type[Method]] = {
    "sequential": Sequential,
    "joint": Joint,
    "single": Single,
    "adapter-per-task": AdapterPerTask,
    "freeze": Freeze,
    "moe-lora": MoeLora,
    "o-lora": OLora,
    "osf": Osf,
}
ENTRY_POINTS = "forgetmenot.methods"

__all__ = [
    "ENTRY_POINTS",
    "METHODS",
    "Joint",
    "Method",
    "Options",
    "Sequential",
    "Single",
    "Stage",
    "known_methods",
    "make_method",
]


def known_methods() -> dict[str, type[Method]]:
    """The methods of this package and those that others give through entry points, by name."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {**others, **METHODS}


def make_method(name: str, options: dict[str, Any], seed: int) -> Method:
    """A method by name, with its options checked.

    Raises:
        UserError: If there is no such method or option, naming the nearest.
    """
    methods = known_methods()
    if name not in methods:
        raise UserError(f"method.name: there is no method {name!r}. {nearest(name, methods)}")
    try:
        checked = methods[name].Options(**options)
    except ValidationError as error:
        raise UserError(validation_sentence(error, methods[name].Options, "method")) from error
    return methods[name](checked, seed)
